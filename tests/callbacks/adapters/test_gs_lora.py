"""GS-LoRA: its three terms, what moves when, merging, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN
from conformance.runs import attached, train
from conformance.streams import make_stream
from torch.testing import assert_close

from lightning_cl.callbacks import FineTuning, GSLoRA
from lightning_cl.nn.losses import group_norms
from lightning_cl.training import Step
from lightning_cl.training.step import HeadCall

MLP = "net.blocks.0.mlp.fc1"
pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_gradient_of_a_group() -> None:
    """Of ``W = (3, 4)`` with ``alpha = 1e-4``: ``(6e-5, 8e-5)``."""
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    (1e-4 * group_norms([("block/w", weight)], lambda name: name)).sum().backward()
    assert_close(weight.grad, torch.tensor([6e-5, 8e-5]).double())
    zero = torch.zeros(2, requires_grad=True)
    group_norms([("w", zero)], lambda name: name).sum().backward()
    assert torch.equal(zero.grad, torch.zeros(2))


def test_tensors_of_a_block_are_one_group() -> None:
    named = [("a/fc1", torch.tensor([3.0])), ("b/fc1", torch.tensor([2.0])), ("a/fc2", torch.tensor([[4.0]]))]
    assert_close(group_norms(named, lambda name: name[0]), torch.tensor([5.0, 2.0]))


@pytest.fixture
def module() -> Any:
    """Attached, as in the task of a request for classes 0 and 2."""
    module = attached(PLAIN, GSLoRA(rank=2, bound=3.0, beta=0.2, alpha=0.0))
    part = module.continual.parts["gslora"]
    part.asked = torch.tensor([0, 2])
    return module


def terms(module: Any, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    step = Step(module, (None, targets), [HeadCall(torch.empty(0), logits)])
    return module.continual.parts["gslora"].losses(step)


def test_the_terms_are_those_of_the_formula(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(module), "trainer", SimpleNamespace(world_size=1))
    logits = torch.randn(6, 6, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    found = terms(module, logits, targets)
    forget, retain = (
        F.cross_entropy(logits[[0, 2, 5]], targets[[0, 2, 5]]),
        F.cross_entropy(logits[[1, 3, 4]], targets[[1, 3, 4]]),
    )
    assert_close(found["gs_lora_retain"], retain)
    assert_close(found["gs_lora_forget"], 0.2 * (3.0 - forget))
    (gradient,) = torch.autograd.grad(found["gs_lora_forget"], logits)
    (expected,) = torch.autograd.grad(-0.2 * forget, logits)
    assert_close(gradient, expected)


def test_above_the_bound_nothing_is_pushed(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(module), "trainer", SimpleNamespace(world_size=1))
    logits = torch.zeros(2, 6).index_fill_(1, torch.tensor([0]), -9.0).requires_grad_()
    term = terms(module, logits, torch.tensor([0, 0]))["gs_lora_forget"]
    (gradient,) = torch.autograd.grad(term, logits)
    assert term.item() == 0
    assert bool((gradient == 0).all())


def test_an_update_is_the_network_that_it_is_merged_into(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And as long as ``B`` is zero, the network is the one without it."""
    monkeypatch.setattr(type(module), "trainer", SimpleNamespace(datamodule=SimpleNamespace(seed=0)))
    part, images = module.continual.parts["gslora"], torch.rand(5, 1, 16, 16)
    plain = PLAIN.build("adamw", 0.0).eval()
    plain.load_state_dict({n: w for n, w in module.state_dict().items() if n in plain.state_dict()})
    module.eval()
    assert torch.equal(module(images), plain(images))
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    before, deltas = module(images), {name: part.adapters.bank(name).delta(0) for name in part.adapters.names}
    assert sorted({name.rpartition(".")[2] for name in part.adapters.names}) == ["fc1", "fc2"]
    weights = {name: module.get_submodule(name).weight.detach().clone() for name in part.adapters.names}
    part.start_task(module, SimpleNamespace(index=2, forgets=(0,)))
    assert_close(module(images), before, rtol=0, atol=1e-5)
    assert not torch.equal(before, plain(images))
    for name, weight in weights.items():
        assert_close(module.get_submodule(name).weight - deltas[name], weight, rtol=0, atol=1e-6)


def test_it_is_plain_training_until_something_is_to_be_forgotten(tmp_path: Any) -> None:
    """And then the feed-forward layers alone are changed, under decay and momentum."""
    plain = train(PLAIN, FineTuning(train_mask="seen"), tmp_path, stream_options={"kind": "forget"}, max_epochs=1)
    learned = train(PLAIN, GSLoRA(rank=2), tmp_path, max_epochs=1)
    whole = train(PLAIN, GSLoRA(rank=2, beta=1.0), tmp_path)
    assert int((whole.module.continual.parts["gslora"].adapters.bank(MLP).up != 0).sum())
    names = [name for name, _ in PLAIN.build("adamw", 0.0).named_parameters()]
    before, now = (dict(run.module.named_parameters()) for run in (learned, whole))
    assert all(torch.equal(before[name], p) for name, p in plain.module.named_parameters())
    moved = {name for name in names if not torch.equal(before[name], now[name])}
    assert moved == {name for name in names if ".mlp." in name and name.endswith("weight")}


def test_a_stream_that_asks_for_nothing_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"GSLoRA forgets classes on request, but this stream \(ClassIncremental\)"):
        train(PLAIN, GSLoRA(), tmp_path, stream_options={"kind": "labelled"})


def test_layers_by_name() -> None:
    module = attached(PLAIN, GSLoRA(at=r"attn\.proj"))
    assert [name.rpartition("blocks.")[2] for name in module.continual.parts["gslora"].adapters.names] == [
        f"{block}.attn.proj" for block in range(3)
    ]
    with pytest.raises(ValueError, match="names a LayerNorm"):
        attached(PLAIN, GSLoRA(at="norm1"))
    with pytest.raises(ValueError, match="`bound` is -1"):
        GSLoRA(bound=-1)
    assert make_stream("forget").info.forgets_per_task == ((), (0,), (1,))
