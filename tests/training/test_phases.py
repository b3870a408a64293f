"""A task's epochs in phases, against slots counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_cl.datamodules import Task
from lightning_cl.training import Phases
from lightning_cl.training.phases import last_epochs


def task(index: int, epochs: int, first_epoch: int = 0) -> Task:
    return Task(index, (0,), (0,), (0,), first_epoch, epochs)


PHASES = Phases(
    first=[("warm_up", lambda task: task.index), ("adapters", lambda task: 2)],
    last=[("router", lambda task: task.epochs // 4), ("head", lambda task: 1)],
    between="both",
)


@pytest.mark.parametrize(
    ("index", "epochs", "expected"),
    [(0, 5, "a a b r h"), (1, 5, "w a a r h"), (2, 8, "w w a a b r r h"), (0, 3, "a a h")],
)
def test_every_epoch_has_its_phase(index: int, epochs: int, expected: str) -> None:
    assert " ".join(PHASES.at(task(index, epochs), epoch)[0] for epoch in range(epochs)) == expected


def test_without_slots_all_epochs_are_alike() -> None:
    assert {Phases().at(task(1, 4), epoch) for epoch in range(4)} == {"regular"}


def test_what_does_not_fit_is_below_zero() -> None:
    lengths = PHASES.lengths(task(3, 4))
    assert lengths == {"warm_up": 3, "adapters": 2, "both": -3, "router": 1, "head": 1}
    assert list(lengths) == ["warm_up", "adapters", "both", "router", "head"]


def test_now_counts_from_the_tasks_first_epoch() -> None:
    stream = SimpleNamespace(task=task(1, 5, first_epoch=7))
    phases = [
        PHASES.now(SimpleNamespace(trainer=SimpleNamespace(datamodule=stream, current_epoch=epoch)))
        for epoch in range(7, 12)
    ]
    assert phases == ["warm_up", "adapters", "adapters", "router", "head"]


@pytest.mark.parametrize(("epochs", "share", "expected"), [(30, 1 / 3, 10), (5, 1 / 3, 2), (1, 1 / 3, 0), (2, 1.0, 1)])
def test_the_last_third_of_the_epochs(epochs: int, share: float, expected: int) -> None:
    assert last_epochs(share, task(0, epochs)) == expected
