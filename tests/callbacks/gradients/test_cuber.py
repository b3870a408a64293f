"""CUBER-style steps: GPM where nothing is freed, the regimes of a run, and the gradient that is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_cl.callbacks import CUBER, GPM, ContinualCallback

from ..by_hand import SIZE, Net, assert_differs, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Watch(ContinualCallback):
    """What the layer's memory holds, and the weights, at every task's end."""

    def __init__(self) -> None:
        self.ends: list[dict[str, Any]] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        memory = pl_module.continual.parts["cuber"].memory("body.1")
        kept = {name: buffer.clone() for name, buffer in memory.named_buffers()}
        self.ends.append({**kept, "basis": memory.basis.clone(), "net": weights(pl_module)})


def watched(method: Any) -> tuple[Net, list[dict[str, Any]]]:
    watch = Watch()
    return run(method, lr=0.1, callbacks=[watch]), watch.ends


def test_above_one_it_is_gpm() -> None:
    found, expected = run(CUBER(0.99, 0.01, likeness=1.1)), run(GPM(0.99, 0.01))
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], value, rtol=1e-9, atol=1e-9)


def test_held_directions_stay_and_free_ones_move() -> None:
    """``likeness=0, sign=-1`` frees all; without a pull that is fine-tuning of the layer."""
    for free, method in [(False, CUBER(0.99, sign=1.0)), (True, CUBER(0.99, likeness=0.0, sign=-1.0, strength=0.0))]:
        _, ends = watched(method)
        assert bool(ends[1]["free"][0]) == free
        basis = ends[0]["basis"].double()
        moved = (ends[1]["net"]["body.1.weight"] - ends[0]["net"]["body.1.weight"]) @ basis
        assert bool(moved.abs().max() < 1e-5) == (not free)


def test_the_pull_keeps_free_directions_near() -> None:
    ways = []
    for strength in (0.0, 5.0):
        net, ends = watched(CUBER(0.99, likeness=0.0, sign=-1.0, strength=strength))
        basis = ends[0]["basis"].double()
        ways.append(((ends[1]["net"]["body.1.weight"] - ends[0]["net"]["body.1.weight"]) @ basis).norm())
    assert ways[1] < 0.5 * ways[0]
    assert_differs(net, run(GPM(0.99, 0.003), lr=0.1))


def test_the_kept_gradient_is_that_of_the_tasks_mean_loss() -> None:
    net, ends = watched(CUBER(0.99))
    for task, end in enumerate(ends):
        twin = Net().double()
        twin.load_state_dict(end["net"])
        batches = net.tasks[task]
        x, y = (torch.cat(part) for part in zip(*batches[: len(batches) // 2], strict=True))
        classes = slice(0, (task + 1) * SIZE)
        F.cross_entropy(twin(x)[:, classes], y).backward()
        gradient = twin.body[1].weight.grad
        torch.testing.assert_close(end["gradients"][task].double(), gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"energy": 1.5}, r"`energy` is 1.5; give a number in \[0, 1\]"),
        ({"likeness": -1.0}, "`likeness` is -1.0; give at least 0"),
        ({"sign": -2.0}, "`sign` is -2.0; give at least -1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CUBER(**arguments)
