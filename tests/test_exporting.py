"""A restored model can be exported: the same logits from a graph without Python, for any batch size."""

from __future__ import annotations

import pytest
import torch
from conformance.methods import METHODS, make
from conformance.modules import PLAIN
from conformance.runs import train
from torch.testing import assert_close
from trained import images, restored

import lightning_cl.callbacks

#: Methods whose models `torch.export` refuses, each with the reason; all others are exported.
NOT_EXPORTABLE = {
    "MOS": "choosing one of an image's paths fixes the number of images in a graph",
    **dict.fromkeys(("L2M", "SLM"), "updates of the weights for each image fix the number of images in a graph"),
    "LosseFTL": "places on the grid of bins fix the number of images in a graph",
    "MambaFSCIL": "the scan in four directions fixes the number of images in a graph",
    "SHARP": "it answers by the remembered activations, and how many there are is not known in a graph",
    "ReLoop2": "the search for the nearest samples bounds the number of images in a graph",
}
#: Their features are of length 1 and multiplied by a learned scale, in another order in the graph.
ROUNDED = {"MSGCoOp", "MulKI"}

#: Options that take another path, in addition to every method as the conformance suite makes it.
OPTIONS = [
    ("L2P", {"form": "prefix", "prompt_length": 4, "layers": (0, 1)}),
    ("L2P", {"task_mask": True}),
    ("DualPrompt", {"shared_keys": False, "expert_layers": (1, 2)}),
    ("CODAPrompt", {"layers": (1,)}),
    ("PrototypeClassifier", {"distance": "cosine", "normalize": False}),
]
QUICK = {"DualPrompt", "FineTuning", "PrototypeClassifier"}  # tracing takes seconds
VARIANTS = [
    pytest.param(method.__name__, {}, marks=() if method.__name__ in QUICK else pytest.mark.slow) for method in METHODS
]
VARIANTS += [pytest.param(*option, marks=pytest.mark.slow) for option in OPTIONS]


@torch.no_grad()
def exported(model):
    batch = torch.export.Dim("batch")
    return torch.export.export(model, (images(),), dynamic_shapes=({0: batch},), strict=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "-".join(v))
@torch.no_grad()
def test_the_graph_answers_as_the_model(name, arguments):
    method = getattr(lightning_cl.callbacks, name)
    model = restored(method, **arguments)
    if method.needs_task_identity:
        model.continual.task = 0
    model(images())  # heads in closed form are solved when they answer for the first time
    if name in NOT_EXPORTABLE:
        with pytest.raises(Exception):  # noqa: B017, PT011 (of many kinds, all from torch.export)
            exported(model)
        return
    graph = exported(model).module()
    for count in (5, 2, 9):
        tolerance = 1e-5 if name in ROUNDED else 0
        assert_close(graph(images(count)), model(images(count)), rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["PrototypeClassifier", pytest.param("DualPrompt", marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_model_that_was_just_trained_is_exported(name, tmp_path):
    # It remembers features of evaluation images, and knows which of its parts can be skipped for them.
    model = train(PLAIN, make(getattr(lightning_cl.callbacks, name)), tmp_path).module.eval()
    graph = exported(model).module()
    assert torch.equal(graph(images(3)), model(images(3)))


def test_the_table_of_exceptions_names_methods():
    assert set(NOT_EXPORTABLE) <= {method.__name__ for method in METHODS}
    assert all(NOT_EXPORTABLE.values())


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_graph_can_be_saved_and_keeps_the_class_mask(tmp_path):
    model = restored(lightning_cl.callbacks.CODAPrompt)
    model.continual.mask.allow(None, [1, 4])
    torch.export.save(exported(model), tmp_path / "model.pt2")
    logits = torch.export.load(tmp_path / "model.pt2").module()(images(3))
    assert torch.equal(logits, model(images(3)))
    assert logits.gt(-500).any(0).nonzero().flatten().tolist() == [1, 4]
