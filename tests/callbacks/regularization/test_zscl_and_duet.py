"""ZSCL's weight ensemble and DuET: whole runs against their formulas typed out, and their plain ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import ZSCL, DuET

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class ZSCLByHand(ByHand):
    """The mean of the weights at a task's start and after every second step."""

    def __init__(self, net: Net) -> None:
        self.steps, self.passed = 0, list[dict[str, Tensor]]()
        super().__init__(net)

    def stepped(self, before: dict[str, Tensor]) -> None:
        if not self.passed:
            self.passed, self.steps = [before], 0
        self.steps += 1
        if self.steps % 2 == 0:
            self.passed.append(weights(self.net))

    def end(self, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            for name, p in self.net.body.named_parameters():
                p.copy_(torch.stack([known[f"body.{name}"] for known in self.passed]).mean(0))
        self.passed = []


def test_a_run_of_zscl_equals_the_formula() -> None:
    net = run(ZSCL(2))
    assert_close(net, ZSCLByHand(net))
    assert_differs(net, run(ZSCL(0)))


class DuETByHand(ByHand):
    """Task vectors of the body, with the share of the old one by its length, or the mean of all tasks."""

    def __init__(self, net: Net, consistency: float, average: bool) -> None:
        self.consistency, self.average, self.way = consistency, average, dict[str, Tensor]()
        first = self.untrained()
        self.first, self.last = weights(first), weights(first)
        super().__init__(net)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.cross_entropy(x, y)
        for name, p in self.net.named_parameters():
            if name in self.way:
                loss = loss + self.consistency * torch.relu(-(p - self.last[name]) * self.way[name]).sum()
        return loss

    def end(self, x: Tensor, y: Tensor) -> None:
        for name, p in self.net.named_parameters():
            if not name.startswith("body"):
                continue
            old, new = self.last[name] - self.first[name], p.detach() - self.first[name]
            p_value = (old.norm() - new.norm()) / (old + new).norm()
            a = self.task / (self.task + 1) if self.average else 0.4 + 0.2 * torch.tanh(p_value)
            if self.task:
                p.data.copy_(self.first[name] + a * old + (1 - a) * new)
            self.way[name] = p.detach() - self.last[name]
        self.last = weights(self.net)


@pytest.mark.parametrize("average", [False, True])
def test_a_run_of_duet_equals_the_formula(average: bool) -> None:
    net = run(DuET(0.4, 0.2, 0.05, "average" if average else "duet"), lr=0.1)
    assert_close(net, DuETByHand(net, 0.05, average))
    assert_differs(net, run(DuET(0.4, 0.2, 0.0, "average" if average else "duet"), lr=0.1))


def test_without_shares_and_terms_it_is_fine_tuning() -> None:
    assert_fine_tuning(DuET(0.0, 0.0, 0.0))
    assert_fine_tuning(ZSCL(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ZSCL(-1), "`every` is -1; give at least 0"),
        (lambda: DuET(base=1.5), r"`base` is 1.5; give a number in \[0, 1\]"),
        (lambda: DuET(keep=0.0), "`keep` is 0.0; give a number above 0"),
        (lambda: DuET(rule="sum"), "`rule` is 'sum'; give one of 'duet', 'average', 'ties'"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
