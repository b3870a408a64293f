"""LT-SFT: a run against both phases typed out, what stays, and the changes of its tasks on the base model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import LTSFT
from lightning_cl.nn.sparse_deltas import compose

from ..by_hand import SIZE, ByHand, Net, assert_close, make_stream, run, start

pytestmark = pytest.mark.filterwarnings("ignore")
BODY = ["body.1.weight", "body.1.bias"]


class LTSFTByHand(ByHand):
    """After the first of two epochs back to the start, and from there with a fresh optimiser on the chosen alone."""

    def __init__(self, net: Net, count: int, disjoint: bool) -> None:
        self.count, self.disjoint, self.owned = count, disjoint, torch.zeros(16 * 9 + 9, dtype=torch.bool)
        self.steps, self.mask, self.first = 0, None, None
        super().__init__(net)

    def flat(self) -> Tensor:
        return torch.cat([dict(self.net.named_parameters())[name].detach().flatten() for name in BODY])

    def put(self, flat: Tensor) -> None:
        parameters = dict(self.net.named_parameters())
        for name, part in zip(BODY, flat.split([144, 9]), strict=True):
            parameters[name].data.copy_(part.view_as(parameters[name]))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.steps == 0:
            self.first, self.mask = self.flat(), None
        if self.steps == 3:  # three batches an epoch
            moved = (self.flat() - self.first).abs()
            if self.disjoint:
                moved[self.owned] = -1
            self.mask = torch.zeros_like(self.owned)
            self.mask[moved.argsort(descending=True, stable=True)[: self.count]] = True
            self.put(self.first)
            self.velocity = {name: torch.zeros_like(p) for name, p in self.net.named_parameters()}
        self.steps += 1
        return self.cross_entropy(x, y)

    def edit(self, x: Tensor, y: Tensor) -> None:
        if self.mask is not None:  # from here on by hand: the optimiser of the loop remembers the first phase
            self.gradients_now = {name: p.grad.clone() for name, p in self.net.named_parameters()}

    def stepped(self, before: dict[str, Tensor]) -> None:
        if self.mask is None:
            return
        parameters = dict(self.net.named_parameters())
        masks = dict(zip(BODY, [m for m in self.mask.split([144, 9])], strict=True))
        rows = slice(self.task * SIZE, (self.task + 1) * SIZE)
        for name, p in parameters.items():
            gradient = self.gradients_now[name]
            if name in masks:
                gradient = gradient * masks[name].view_as(gradient)
            self.velocity[name] = 0.5 * self.velocity[name] + gradient
            new = before[name] - self.net.lr * self.velocity[name]
            if name.startswith("fc"):
                kept = before[name].clone()
                kept[rows] = new[rows]
                new = kept
            p.data.copy_(new)

    def end(self, x: Tensor, y: Tensor) -> None:
        self.owned |= self.mask
        self.steps = 0


@pytest.mark.parametrize("disjoint", [False, True])
def test_a_run_equals_both_phases_by_hand(disjoint: bool) -> None:
    net = run(LTSFT(0.1, disjoint=disjoint))
    assert_close(net, LTSFTByHand(net, 15, disjoint))
    before, taken = start(), []
    for end in net.ends:  # of every task
        moved = torch.cat([(end[name] != before[name]).flatten() for name in BODY])
        assert 0 < int(moved.sum()) <= 15
        taken.append(moved)
        before = end
    overlap = int((taken[0] & taken[1]).sum() + (taken[0] & taken[2]).sum() + (taken[1] & taken[2]).sum())
    assert (overlap == 0) == disjoint


def test_the_changes_of_tasks_on_the_base_are_the_network_of_each_task() -> None:
    net = run(LTSFT(0.1))
    base, deltas = {name: start()[name] for name in BODY}, [LTSFT.delta(net, task) for task in range(3)]
    assert [delta.size for delta in deltas] == [15, 15, 15]
    for task in range(3):
        found = compose(base, [(delta, 1.0) for delta in deltas[: task + 1]])
        assert all(torch.equal(found[name], net.ends[task][name]) for name in BODY)
    alone = compose(base, [(deltas[0], 1.0), (deltas[1], 1.0), (deltas[1], -1.0)])
    assert all(torch.equal(alone[name], net.ends[0][name]) for name in BODY)


def test_with_one_epoch_what_moved_farthest_stays() -> None:
    sparse = run(LTSFT(0.1), stream=make_stream(epochs_per_task=1))
    plain = run(LTSFT(1.0), stream=make_stream(epochs_per_task=1))
    before = start()
    moved = torch.cat([(plain.ends[0][name] - before[name]).flatten() for name in BODY])
    kept = torch.cat([(sparse.ends[0][name] - before[name]).flatten() for name in BODY])
    chosen = moved.abs().argsort(descending=True)[:15]
    torch.testing.assert_close(kept[chosen], moved[chosen], rtol=1e-9, atol=1e-12)
    assert int((kept != 0).sum()) == 15


def test_a_share_of_every_layer() -> None:
    net = run(LTSFT(0.2, per_layer=True))
    before: Any = start()
    assert [int((net.ends[0][name] != before[name]).sum()) for name in BODY] == [28, 1]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`share` is 0.0; give a number above 0"):
        LTSFT(0.0)
    with pytest.raises(ValueError, match=r"`dense` is 1.5; give a number in \[0, 1\]"):
        LTSFT(dense=1.5)
