"""MIR: a whole run against the choice typed out with a copy of the network that makes the step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import MIR

from ..by_hand import ByHand, Net, assert_close, assert_differs, run

pytestmark = pytest.mark.filterwarnings("ignore")
BATCH, CANDIDATES = 4, 9


class MIRByHand(ByHand):
    """Tries a step of plain descent on the stream, and learns the samples that it harms most."""

    def __init__(self, net: Net, reads: list[Any], lr: float) -> None:
        self.reads, self.first, self.tried = list(reads), True, lr
        super().__init__(net, seen=True, fresh=False)

    def harm(self, x: Tensor, y: Tensor, candidates: Any) -> Tensor:
        trial, gradients = copy.deepcopy(self.net), self.gradients(self.cross_entropy(x, y))
        with torch.no_grad():
            for name, gradient in gradients.items():
                trial.get_parameter(name).sub_(self.tried * gradient)
            after, before = (
                F.cross_entropy(net(candidates.inputs)[:, self.classes], candidates.labels, reduction="none")
                for net in (trial, self.net)
            )
        return after - before

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.cross_entropy(x, y)
        if self.first:  # the memory is empty
            self.first = False
            return loss
        drawn = self.reads.pop(0)
        if len(drawn.labels) > BATCH:
            chosen = self.harm(x, y, drawn).sort(descending=True).indices[:BATCH]
            expected, drawn = drawn.inputs[chosen], self.reads.pop(0)
            assert torch.equal(drawn.inputs, expected)
        return loss + self.cross_entropy(drawn.inputs, drawn.labels)


def test_a_run_equals_the_formula(reads: list[Any]) -> None:
    net = run(MIR(20, BATCH, candidates=CANDIDATES, lr=0.5), lr=0.1)
    hand = MIRByHand(net, reads, 0.5)
    assert_close(net, hand)
    assert not hand.reads


def test_without_a_rate_it_tries_the_optimiser_s_and_with_as_many_candidates_it_chooses_none(reads: list[Any]) -> None:
    net = run(MIR(20, BATCH, candidates=CANDIDATES), lr=0.1)
    assert_close(net, MIRByHand(net, reads, 0.1))
    reads.clear()
    plain = run(MIR(20, BATCH, candidates=BATCH), lr=0.1)
    assert all(len(drawn.labels) == BATCH for drawn in reads)
    assert_differs(net, plain)


def test_fewer_candidates_than_are_chosen_are_refused() -> None:
    with pytest.raises(ValueError, match="`candidates` is 3, of which 4 are chosen; give at least `batch_size`"):
        MIR(20, 4, candidates=3)
