"""MER-style replay: blocks of steps against their formula, and plain replay at the full rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import MER, ExperienceReplay

from ..by_hand import ByHand, Net, assert_close, assert_differs, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class MERByHand(ByHand):
    """On the joined batches that the steps saw; a task has 6 steps."""

    def __init__(self, net: Net, rate: float, steps: int) -> None:
        self.rate, self.steps, self.made = rate, steps, 0
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.made:
            self.begun = weights(self.net)
        return super().loss(x, y)

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.made += 1
        if self.made == self.steps:
            self.close()

    def close(self) -> None:
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                p.copy_(self.begun[name] + self.rate * (p - self.begun[name]))
        self.made = 0

    def end(self, x: Tensor, y: Tensor) -> None:
        if self.made:
            self.close()


@pytest.mark.parametrize("steps", [2, 4])
def test_a_run_equals_the_formula(steps: int) -> None:
    net = run(MER(30, 6, rate=0.3, steps=steps), lr=0.1)
    assert_close(net, MERByHand(net, 0.3, steps))
    assert_differs(net, run(MER(30, 6, rate=1.0), lr=0.1))


def test_the_full_rate_is_plain_replay() -> None:
    found, expected = weights(run(MER(30, 6, rate=1.0, steps=2))), weights(run(ExperienceReplay(30, 6)))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"rate": 1.5}, r"`rate` is 1.5; give a number in \[0, 1\]"), ({"steps": 0}, "`steps` is 0; give at least 1")],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MER(**arguments)
