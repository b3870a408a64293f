"""FPF and k-FPF: phases against their steps typed out, what they leave alone, and when they come."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import FPF, KFPF, ExperienceReplay
from lightning_cl.callbacks.replay.fpf import ProneWeights
from lightning_cl.nn import Guard
from lightning_cl.training.memory_steps import tune_on_memory

from ..by_hand import SIZE, TASKS, Net, assert_differs, assert_fine_tuning, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, Tensor], dict[str, Tensor]]]:
    """Optimiser steps made so far, and weights before and after, of every phase."""
    found: list[Any] = []
    whole = ProneWeights.tune

    def tune(self: Any, module: Any) -> None:
        before = weights(module)
        whole(self, module)
        found.append((sum(len(task) for task in module.tasks), before, weights(module)))

    monkeypatch.setattr(ProneWeights, "tune", tune)
    return found


def by_hand(before: dict[str, Tensor], batches: list[Any], classes: int, lr: float) -> dict[str, Tensor]:
    """The head's steps from the weights before a phase."""
    net = Net().double()
    net.load_state_dict(before)
    optimizer = torch.optim.SGD(net.fc.parameters(), momentum=0.9)
    for step, drawn in enumerate(batches):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / len(batches))) / 2
        optimizer.zero_grad()
        F.cross_entropy(net(drawn.inputs)[:, :classes], drawn.labels).backward()
        optimizer.step()
    return weights(net)


def test_phases_at_task_ends_equal_the_formula(reads: list[Any], phases: list[Any]) -> None:
    """A network without norms: the head alone; rows of unseen classes stay, too."""
    run(FPF(20, 6, steps=4, lr=0.2), lr=0.1)
    assert [made for made, _, _ in phases] == [6, 12, 18]
    for task, (_, before, after) in enumerate(phases):
        expected = by_hand(before, reads[4 * task : 4 * task + 4], (task + 1) * SIZE, 0.2)
        for name, value in after.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10)
            assert torch.equal(value, before[name]) == (not name.startswith("fc"))
        assert torch.equal(after["fc.weight"][(task + 1) * SIZE :], start()["fc.weight"][(task + 1) * SIZE :])


def test_chosen_weights_alone_move(phases: list[Any]) -> None:
    run(FPF(20, 6, steps=2, select=r"body\..*weight"))
    for _, before, after in phases:
        assert [name for name, value in after.items() if not torch.equal(value, before[name])] == ["body.1.weight"]


@pytest.mark.parametrize(("k", "expected"), [(0, []), (1, [18]), (4, [5, 9, 14, 18]), (18, list(range(1, 19)))])
def test_k_phases_at_equal_distances(k: int, expected: list[int], phases: list[Any]) -> None:
    """In 18 steps, whatever the tasks."""
    run(KFPF(20, 6, steps=1, phases=k))
    assert [made for made, _, _ in phases] == expected
    assert TASKS == 3


def test_without_phases_it_is_fine_tuning_or_replay() -> None:
    assert_fine_tuning(KFPF(20, 6, phases=0))
    assert_fine_tuning(KFPF(20, 6, steps=0))
    found, expected = weights(run(FPF(20, 6, steps=0))), weights(run(ExperienceReplay(20, 6)))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert_differs(run(FPF(20, 6, steps=3)), run(ExperienceReplay(20, 6)))


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        (FPF, {"steps": -1}, "`steps` is -1; give at least 0"),
        (FPF, {"lr": 0.0}, "`lr` is 0.0; give a number above 0"),
        (KFPF, {"phases": -1}, "`phases` is -1; give at least 0"),
    ],
)
def test_bad_arguments(method: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        method(**arguments)


def test_a_choice_without_weights() -> None:
    with pytest.raises(ValueError, match=r"`select='norm9'` matches none of the trained parameters .*body\.1\.weight"):
        run(FPF(20, 6, select="norm9"))


def test_what_is_protected_stays_under_momentum() -> None:
    """Rows that have a gradient, too, in steps that the Trainer does not make."""
    net = run(FPF(20, 6, steps=0), lr=0.1)
    before = weights(net)["fc.weight"]
    net.continual.guards = [Guard(net.fc.weight, torch.tensor([0, 2]))]
    tune_on_memory(net, [net.fc.weight], 3, 0.5)
    moved = (weights(net)["fc.weight"] != before).any(1)
    assert moved.tolist() == [False, True, False, True, True, True]
