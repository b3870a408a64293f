"""Heads of people's own: named, read and masked whatever their weight is called; or refused, with the reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyModule, stream_info, task_of
from torch import Tensor, nn
from torch.testing import assert_close

import lightning_cl
from lightning_cl.callbacks import (
    TEEN,
    WA,
    DERPlusPlus,
    FineTuning,
    LanguageGuidedHead,
    LwF,
    PrototypeClassifier,
)
from lightning_cl.training.find_modules import find_head
from lightning_cl.training.state_growth import grow_state

from .heads import CLASSES, WIDTH, Arc, Cosine, Perceptron, Pixels, Proxies, Wrapped


class Net(TinyModule):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head = nn.Sequential(nn.Flatten(), nn.Linear(12, WIDTH)).double(), head.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


def attached(make: Any, method: Any, path: str | None = "head") -> Net:
    """In task 1 of five: classes 2 and 3 are new."""
    torch.manual_seed(0)
    module, info = Net(make()), stream_info()
    method(**{**method.small, **({"train_mask": "task"} if method is FineTuning else {}), "head": path}).attach_once(
        module, info
    )
    for index in (0, 1):
        module.on_task_start(task_of(info, index))
    return module


X = torch.randn(6, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([2, 3] * 3)
#: Parameter of the head whose rows are the classes', and the place of the classes in it.
NAMED = {Arc: ("head.kernel", 1), Proxies: ("head.proxies", 0), Perceptron: ("head.out.weight", 0)}


@pytest.mark.parametrize("make", NAMED)
def test_a_head_of_ones_own_is_masked_and_trains_the_rows_of_its_classes(make: Any) -> None:
    module = attached(make, FineTuning)
    name, dim = NAMED[make]
    plain = Net(make())
    plain.load_state_dict({n: v for n, v in module.state_dict().items() if not n.startswith("continual")})
    logits = module(X)
    assert_close(logits[:, 2:4], plain(X)[:, 2:4])
    assert bool((logits[:, [0, 1, *range(4, CLASSES)]] < -900).all())
    before, optimizer = copy.deepcopy(module.get_parameter(name).detach()), module.configure_optimizers()  # AdamW
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X), Y).backward()
        optimizer.step()
    moved = (module.get_parameter(name) != before).movedim(dim, 0).flatten(1).any(1)
    assert moved.nonzero().flatten().tolist() == [2, 3]


@pytest.mark.parametrize("make", NAMED)
@pytest.mark.parametrize("method", [DERPlusPlus, LwF, PrototypeClassifier, TEEN, LanguageGuidedHead])
def test_methods_read_a_head_of_ones_own(method: Any, make: Any) -> None:
    module = attached(make, method)
    head = module.continual_head
    assert (head.in_features, head.out_features) == (WIDTH, CLASSES)
    twin = copy.deepcopy(module).eval()
    assert_close(twin(X), module.eval()(X))
    if method is TEEN:
        rows = nn.functional.normalize(head.weight, dim=1)
        features = module.net(X) if make is not Perceptron else module.head.hidden(module.net(X)).relu()
        expected = module.continual.parts["teen"].bank.scale * nn.functional.normalize(features) @ rows.T
        assert_close(module.eval()(X)[:, :4], expected[:, :4].to(X))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Arc, ["head.kernel"]),
        (Proxies, ["head.proxies", "head.bias"]),
        (Perceptron, ["head.out.weight", "head.out.bias"]),
        (Pixels, ["head.1.weight", "head.1.bias"]),
        (
            lambda n: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, n)),
            ["head.parametrizations.weight.original1"],
        ),
    ],
)
def test_a_head_of_ones_own_grows_with_the_stream(make: Any, names: list[str]) -> None:
    short, long = Net(make(6)), Net(make(CLASSES))
    FineTuning(head="head").attach_once(short, stream_info(3, 6))
    FineTuning(head="head").attach_once(long, stream_info())
    saved, fresh = short.state_dict(), long.state_dict()
    grown = grow_state(long, {name: value + 1 if "head" in name else value for name, value in saved.items()})
    for name in names:
        old, new = saved[name], fresh[name]
        assert grown[name].shape == new.shape
        known = tuple(slice(size) for size in old.shape)
        assert torch.equal(grown[name][known], old + 1)
        assert int((grown[name] == new).sum()) == new.numel() - old.numel()


@pytest.mark.parametrize("make", [Arc, Pixels, Perceptron])
def test_a_method_file_goes_into_a_module_with_another_head_of_its_kind(make: Any, tmp_path: Path) -> None:
    """The head that a method replaced is frozen as it was drawn, and is no backbone."""
    module = attached(make, LanguageGuidedHead)
    module.net.requires_grad_(False)
    lightning_cl.save_method(tmp_path / "method.safetensors", module)
    torch.manual_seed(1)
    fresh = Net(make())
    for parameter in fresh.head.parameters():
        torch.nn.init.normal_(parameter)
    fresh.net.load_state_dict(module.net.state_dict())
    method = LanguageGuidedHead(**LanguageGuidedHead.small, head="head")
    loaded = lightning_cl.load_method(tmp_path / "method.safetensors", fresh, [method])
    assert torch.equal(loaded.eval()(X), module.eval()(X))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (nn.Identity(), "is a Identity, but a class head must be a `torch.nn.Linear`, or another layer with a row"),
        (nn.Bilinear(WIDTH, WIDTH, CLASSES), "is a Bilinear"),
        (nn.Embedding(CLASSES, WIDTH), "is a Embedding"),
        (nn.ParameterList([torch.zeros(CLASSES, WIDTH), torch.zeros(CLASSES, WIDTH)]), "is a ParameterList"),
        (nn.ModuleList([nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)]), "is a ModuleList"),
    ],
)
def test_what_has_no_row_for_each_class_is_refused(head: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        find_head(Net(head), CLASSES, "head")


@pytest.mark.parametrize(
    "make", [Cosine, Arc, Wrapped, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 10))]
)
def test_weight_aligning_wants_a_linear_head(make: Any) -> None:
    with pytest.raises(ValueError, match=r"WA makes the rows .* so the head must be a plain `torch.nn.Linear`.* `LwF`"):
        attached(make, WA)


@pytest.mark.parametrize("make", [lambda: nn.Linear(WIDTH, CLASSES), Pixels])
def test_weight_aligning_takes_linear_heads(make: Any) -> None:
    attached(make, WA, None)


def test_class_means_of_rows_want_rows_that_are_the_heads_own() -> None:
    with pytest.raises(ValueError, match="TEEN compares features with the rows of the head, but `head` is a Wrapped"):
        attached(Wrapped, TEEN)
