"""ER-ACE: the numbers of its specification, and a whole run against the formula typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import ERACE, FineTuning
from lightning_cl.callbacks.replay.er_ace import seen_classes
from lightning_cl.mixins.replay import ReplayMixin
from lightning_cl.nn import ClassMask

from ..by_hand import ByHand, Net, assert_close, assert_differs, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_worked_example() -> None:
    """Logits (1, 2, 3), label 0, classes 0 and 2 in the batch: 2.126928, and 2.407606 over all."""
    mask, z, y = ClassMask(3).train(), torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0])
    mask.allow([0, 2], [0, 1, 2])
    assert F.cross_entropy(mask(z), y).item() == pytest.approx(2.126928, abs=1e-6)
    assert F.cross_entropy(z, y).item() == pytest.approx(2.407606, abs=1e-6)


class ERACEByHand(ByHand):
    """The stream over the classes of its batch, the memory over all seen."""

    def __init__(self, net: Net, draws: list[Any]) -> None:
        self.draws, self.first = list(draws), True
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        present = sorted(set(y.tolist()))
        places = torch.tensor([present.index(c) for c in y.tolist()])
        loss = F.cross_entropy(self.net(x)[:, present], places)
        if self.first:  # the memory is empty
            self.first = False
            return loss
        drawn = self.draws.pop(0)
        return loss + F.cross_entropy(self.net(drawn.inputs)[:, self.classes], drawn.labels)


def test_a_run_equals_the_formula(draws: list[Any]) -> None:
    net = run(ERACE(30, 6), lr=0.1)
    hand = ERACEByHand(net, draws)
    assert_close(net, hand)
    assert not hand.draws
    seen = run(ERACE(30, 6, train_mask="seen"), lr=0.1)
    assert_differs(net, seen)


def test_the_mask_of_the_stream_is_back_after_the_memory_s_batch() -> None:
    mask = ClassMask(4)
    mask.allow([1], [0, 1, 3])
    with seen_classes(mask):
        assert mask.train_allowed.tolist() == [True, True, False, True]
    assert mask.train_allowed.tolist() == [False, True, False, False]


def test_without_a_memory_batch_it_is_fine_tuning_within_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayMixin, "draw", lambda self, *args: None)
    found, expected = weights(run(ERACE(30, 6))), weights(run(FineTuning(train_mask="batch")))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
