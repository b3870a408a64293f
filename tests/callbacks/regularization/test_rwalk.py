"""RWalk: a whole run against its formulas typed out, and online EWC without path and normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import EWC, RWalk

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, quadratic, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")
EPS = torch.finfo(torch.float64).eps


class RWalkByHand(ByHand):
    """A task has 6 steps, the last interval of it may be shorter."""

    def __init__(self, net: Net, strength: float, alpha: float, every: int, path: float) -> None:
        self.strength, self.alpha, self.every, self.path = strength, alpha, every, path
        self.term: Any = None
        zeros = {name: torch.zeros_like(p) for name, p in Net().double().named_parameters()}
        self.fisher, self.scores, self.earlier, self.walk = dict(zeros), dict(zeros), None, []
        super().__init__(net)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.own, self.before = self.gradients(self.cross_entropy(x, y)), weights(self.net)
        pull = self.strength * quadratic(self.net, *self.term) if self.term else 0.0
        return self.cross_entropy(x, y) + pull

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.walk.append((self.own, self.before, weights(self.net)))
        if len(self.walk) == self.every:
            self.close()

    def close(self) -> None:
        for name in self.fisher:
            squares = torch.stack([own[name] ** 2 for own, _, _ in self.walk]).mean(0)
            self.fisher[name] = self.alpha * squares + (1 - self.alpha) * self.fisher[name]
            fall = sum(own[name] * (start[name] - end[name]) for own, start, end in self.walk)
            way = self.walk[-1][2][name] - self.walk[0][1][name]
            score = fall / (0.5 * self.fisher[name] * way**2 + EPS)
            self.scores[name] = self.scores[name] + score.clamp(min=0)
        self.walk = []

    def end(self, x: Tensor, y: Tensor) -> None:
        if self.walk:
            self.close()
        known = self.earlier
        self.earlier = {n: s if known is None else (known[n] + s) / 2 for n, s in self.scores.items()}
        self.scores = {name: torch.zeros_like(s) for name, s in self.scores.items()}
        top, longest = (max(float(t.max()) for t in part.values()) for part in (self.fisher, self.earlier))
        importance = {n: f / top + self.path * self.earlier[n] / longest for n, f in self.fisher.items()}
        self.term = (weights(self.net), importance)


@pytest.mark.parametrize(("every", "path"), [(2, 1.0), (4, 0.5)])
def test_a_run_equals_the_formulas(every: int, path: float) -> None:
    net = run(RWalk(0.6, 0.7, every, path), lr=0.1)
    assert_close(net, RWalkByHand(net, 0.6, 0.7, every, path), bound=1e-6)
    assert_differs(net, run(RWalk(0.0), lr=0.1))


def test_without_path_and_scale_it_is_online_ewc() -> None:
    """The Fisher matrix of all 6 steps of a task, which replaces that of earlier tasks."""
    found, expected = run(RWalk(4.0, 1.0, 6, path=0.0, normalize=False)), run(EWC(8.0, 0.0, "steps"))
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], value, rtol=1e-10, atol=1e-10)
    assert_differs(found, run(RWalk(0.0)))


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(RWalk(0.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": -1.0}, "`strength` is -1.0; give at least 0"),
        ({"alpha": 1.5}, r"`alpha` is 1.5; give a number in \[0, 1\]"),
        ({"every": 0}, "`every` is 0; give at least 1"),
        ({"path": -1.0}, "`path` is -1.0; give at least 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RWalk(**arguments)
