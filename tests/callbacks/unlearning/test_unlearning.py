"""Unlearning: each objective's terms and gradients typed out, and what trains when."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN
from conformance.runs import attached, train
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import FineTuning, Unlearning
from lightning_cl.training import Step
from lightning_cl.training.step import HeadCall

pytestmark = pytest.mark.filterwarnings("ignore")
TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])
ASKED = torch.tensor([True, False, True, False, False, True])
ROWS = torch.tensor([3, 9, 1, 0, 4, 3])


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 6, dtype=torch.float64, requires_grad=True)


def terms(logits: Tensor, monkeypatch: Any, **options: Any) -> tuple[dict[str, Tensor], Tensor]:
    """As in the task of a request for classes 0 and 2; the terms and the reference's logits."""
    module = attached(PLAIN, Unlearning(**options))
    stream = SimpleNamespace(
        seed=4,
        source=SimpleNamespace(train_labels=torch.zeros(10)),
        task=SimpleNamespace(index=2, seen_classes=range(6)),
        train_batch=lambda index: SimpleNamespace(index=ROWS),
    )
    trainer = SimpleNamespace(world_size=1, datamodule=stream, fit_loop=SimpleNamespace(batch_idx=0))
    monkeypatch.setattr(type(module), "trainer", trainer)
    part, before = module.continual.parts["unlearning"], torch.randn(6, 6, dtype=torch.float64)
    part.asked = torch.tensor([0, 2])
    step = Step(module, (None, TARGETS), [HeadCall(torch.empty(0), logits)])
    step.look = lambda weights: HeadCall(torch.empty(0), before)  # type: ignore[method-assign]
    return part.losses(step), before


def test_ascent_is_minus_the_gradient_bit_for_bit_up_to_its_bound(logits: Tensor, monkeypatch: Any) -> None:
    loss = F.cross_entropy(logits[ASKED], TARGETS[ASKED])
    found, _ = terms(logits, monkeypatch, objective="ascent", retain_weight=0.0, bound=50.0)
    assert list(found) == ["unlearning_forget"]
    (gradient,), (plain,) = (
        torch.autograd.grad(v, logits, retain_graph=True) for v in (found["unlearning_forget"], loss)
    )
    assert_close(gradient, -plain)
    found, _ = terms(logits, monkeypatch, objective="ascent", bound=float(loss) - 0.01)
    (gradient,) = torch.autograd.grad(found["unlearning_forget"], logits)
    assert not bool(gradient.any())
    found, _ = terms(logits, monkeypatch, objective="ascent")  # chance: ln 6
    assert (found["unlearning_forget"].item() > 0) == (loss.item() < math.log(6))


@pytest.mark.parametrize("per_sample", [False, True])
def test_negative_preference(logits: Tensor, monkeypatch: Any, per_sample: bool) -> None:
    found, before = terms(logits, monkeypatch, objective="npo", per_sample=per_sample, retain_weight=0.5)
    now, then = (F.cross_entropy(z[ASKED], TARGETS[ASKED], reduction="none") for z in (logits, before))
    now, then = (now, then) if per_sample else (now.mean(), then.mean())
    expected = (-2 / 0.9 * torch.sigmoid(0.9 * (now - then)).log()).mean()
    assert_close(found["unlearning_forget"], expected)
    ours, theirs = (torch.autograd.grad(v, logits, retain_graph=True) for v in (found["unlearning_forget"], expected))
    assert_close(ours, theirs)
    assert_close(found["unlearning_retain"], 0.5 * F.cross_entropy(logits[~ASKED], TARGETS[~ASKED]))


def test_refusal_and_what_the_reference_answers(logits: Tensor, monkeypatch: Any) -> None:
    found, before = terms(logits, monkeypatch, objective="refusal", retained="reference")
    others = logits[ASKED][:, [1, 3, 4, 5]].log_softmax(1)
    assert_close(found["unlearning_forget"], -others.mean())
    p, q = before[~ASKED].softmax(1), logits[~ASKED].softmax(1)
    assert_close(found["unlearning_retain"], (p * (p / q).log()).sum(1).mean())


def test_random_labels_are_drawn_once_for_each_sample(logits: Tensor, monkeypatch: Any) -> None:
    found, _ = terms(logits, monkeypatch, objective="random_labels")
    again, _ = terms(logits, monkeypatch, objective="random_labels")
    assert torch.equal(found["unlearning_forget"], again["unlearning_forget"])
    (gradient,) = torch.autograd.grad(found["unlearning_forget"], logits)
    labels = (gradient < 0).int().argmax(1)  # one pulled up in each row that counts
    assert labels[0] == labels[5]  # the same training sample twice
    assert torch.equal((gradient != 0).any(1), ASKED)
    assert_close(found["unlearning_forget"], F.cross_entropy(logits[ASKED], labels[ASKED]))


def test_it_is_plain_training_until_something_is_to_be_forgotten(tmp_path: Any) -> None:
    plain = train(PLAIN, FineTuning(train_mask="seen"), tmp_path, stream_options={"kind": "forget"}, max_epochs=1)
    learned = train(PLAIN, Unlearning(), tmp_path, max_epochs=1)
    before = dict(learned.module.named_parameters())
    assert all(torch.equal(before[name], p) for name, p in plain.module.named_parameters())


def test_what_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"on request, but this stream \(ClassIncremental\)"):
        train(PLAIN, Unlearning(), tmp_path, stream_options={"kind": "labelled"})
    with pytest.raises(ValueError, match="`objective` is 'erase'; give one of 'ascent', 'npo', 'refusal'"):
        Unlearning(objective="erase")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`beta` is 0; give a number above 0"):
        Unlearning(beta=0)
