"""Fast and slow weights: what is left at the ends of the range, and the way of the slow ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import MAS, FastSlowWeights

from ..by_hand import Net, assert_fine_tuning, make_online, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Watched(Net):
    """Remembers the weights with which every task begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[dict[str, Tensor]] = []

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        self.begins.append(weights(self))


def fitted(**arguments: Any) -> Watched:
    net = Watched()
    net.load_state_dict(start())
    return run(FastSlowWeights(**arguments), net=net)


def test_without_penalty_and_all_the_way_it_is_fine_tuning() -> None:
    assert_fine_tuning(FastSlowWeights(0.0, beta=1.0))


def test_all_the_way_it_is_mas() -> None:
    found, expected = weights(run(FastSlowWeights(0.5, beta=1.0))), weights(run(MAS(0.5)))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_task_begins_with_a_share_of_the_way() -> None:
    """``s <- 0.7 s + 0.3 w``, from the first weights on."""
    net, slow = fitted(strength=0.5, beta=0.3), start()
    for begin, end in zip(net.begins, net.ends, strict=True):
        for name, value in begin.items():
            torch.testing.assert_close(value, slow[name])
        slow = {name: 0.7 * value + 0.3 * end[name] for name, value in slow.items()}
    kept = dict(net.continual.parts["fastslowweights"].slow.items())
    assert all(torch.allclose(kept[name], value) for name, value in slow.items())


def test_no_way_leaves_the_slow_weights() -> None:
    net = fitted(beta=0.0)
    assert all(torch.equal(begin[name], value) for begin in net.begins for name, value in start().items())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"`beta` is 2; give a number in \[0, 1\]"):
        FastSlowWeights(beta=2)
    with pytest.raises(ValueError, match="FastSlowWeights moves its slow weights when a task ends, but in a stream"):
        run(FastSlowWeights(), stream=make_online())
