"""LUCIR: the numbers of its specification, and whole runs against the formulas typed out."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.runs import in_forked_processes
from torch import Tensor

from lightning_cl.callbacks import LUCIR, ExperienceReplay
from lightning_cl.callbacks.distillation.lucir import RebalancedTeacher
from lightning_cl.nn.losses import ranking_margin

from ..by_hand import MOMENTUM, SIZE, Net, TaughtByHand, assert_close, assert_differs, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_margin_of_the_worked_example() -> None:
    """Own score 0.6, rivals 0.4 and 0.3 (0.1 is not among the two nearest): (0.3 + 0.2) / 2."""
    scores = torch.tensor([[0.6, 0.1, 0.4, 0.3], [0.9, 0.2, 0.1, 0.3]])
    found = ranking_margin(scores, torch.tensor([0, 0]), torch.tensor([1, 2, 3]), margin=0.5)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0]))


def test_fewer_rivals_than_asked_for() -> None:
    found = ranking_margin(torch.tensor([[0.6, 0.4]]), torch.tensor([0]), torch.tensor([1]), margin=0.5)
    assert found.item() == pytest.approx(0.3)


def test_the_less_forget_term_grows_with_the_share_of_old_classes() -> None:
    """50 old and 10 new classes: 5 sqrt(5) = 11.1803 times the distance, which is 1 at a right angle."""
    part = RebalancedTeacher(Net(), 5.0, 0.5, 0.0, 2, 1.0)
    part.weights.taken = True
    task = SimpleNamespace(seen_classes=range(60), new_classes=range(50, 60))
    call = SimpleNamespace(features=torch.tensor([[0.0, 3.0]]))
    step = SimpleNamespace(task=task, features=torch.tensor([[2.0, 0.0]]), look=lambda weights: call)
    assert part.losses(step)["features"].item() == pytest.approx(11.1803, abs=1e-4)  # type: ignore[arg-type]


class LUCIRByHand(TaughtByHand):
    """A scale with an optimiser of its own; a new class begins with its mean feature, an old one stays."""

    def __init__(self, net: Net, **numbers: Any) -> None:
        self.numbers, self.begun = numbers, -1
        self.scale = torch.tensor(numbers["scale"], dtype=torch.float64, requires_grad=True)
        self.tasks, self.lr = net.tasks, net.lr
        super().__init__(net, seen=True)

    def begin(self) -> None:
        self.begun = self.task
        self.optimizer = torch.optim.SGD([self.scale], lr=self.lr, momentum=MOMENTUM)
        x, y = (torch.cat(parts) for parts in zip(*self.tasks[self.task], strict=True))
        length = self.net.fc.weight[self.old].norm(dim=1).mean()
        for label in range(self.task * SIZE, (self.task + 1) * SIZE) if self.task else ():
            images = x[y == label].unique(dim=0)  # some come in several batches
            units = [f / f.norm() for f in self.net.body(images)]
            mean = sum(units) / len(units)
            self.net.fc.weight.data[label] = (length * mean / mean.norm()).detach()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.begun != self.task:
            self.begin()
        f, rows = self.net.body(x), self.net.fc.weight
        cosines = (f @ rows.T) / (f.norm(dim=1)[:, None] * rows.norm(dim=1))
        loss = F.cross_entropy(self.scale * cosines[:, self.classes], y)
        if self.teacher is not None:
            loss = loss + self.numbers["strength"] * sqrt(self.task) * self.term(self.teacher, x)
            loss = loss + self.numbers["margin_strength"] * self.margin(cosines, y)
        self.scale.grad = None
        return loss

    def term(self, teacher: Net, x: Tensor) -> Tensor:
        f, then = self.net.body(x), teacher.body(x).detach()
        return (1 - (f * then).sum(1) / (f.norm(dim=1) * then.norm(dim=1))).mean()

    def margin(self, cosines: Tensor, y: Tensor) -> Tensor:
        """Both new classes are rivals."""
        gaps = [
            torch.clamp(self.numbers["margin"] - row[label] + row[new], min=0)
            for row, label in zip(cosines, y, strict=True)
            for new in range(self.task * SIZE, (self.task + 1) * SIZE)
            if label < self.task * SIZE
        ]
        return sum(gaps) / len(gaps) if gaps else torch.zeros(())  # type: ignore[return-value]

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.optimizer.step()
        self.net.fc.weight.data[self.old] = before["fc.weight"][self.old]


NUMBERS = {"strength": 1.5, "margin": 0.4, "margin_strength": 0.7, "scale": 3.0}


@pytest.mark.parametrize("memory", [True, False])
def test_a_run_equals_the_formulas(memory: bool) -> None:
    """Beside a memory, whose samples of old classes are held away from new ones, and without."""
    beside = [ExperienceReplay(30, 6)] if memory else []
    net = run(LUCIR(**NUMBERS), lr=0.1, callbacks=beside)
    hand = LUCIRByHand(net, **NUMBERS)
    assert_close(net, hand)
    assert net.continual.parts["lucir"].scale.item() == pytest.approx(hand.scale.item(), abs=1e-9)
    if memory:
        other = run(LUCIR(**{**NUMBERS, "margin_strength": 0.0}), lr=0.1, callbacks=[ExperienceReplay(30, 6)])
        assert_differs(net, other)


def test_rows_of_old_classes_stay_through_a_task() -> None:
    net = run(LUCIR(1.0))
    for task, (before, after) in enumerate(zip(net.ends, net.ends[1:], strict=False)):
        known = (task + 1) * SIZE
        assert torch.equal(before["fc.weight"][:known], after["fc.weight"][:known])


def test_two_processes_equal_one_beside_a_memory(tmp_path: Path) -> None:
    """The margin is the mean over the old samples of all processes, which share them unevenly."""

    def fit() -> None:
        net = run(LUCIR(**NUMBERS), lr=0.1, callbacks=[ExperienceReplay(30, 5)], strategy="ddp", devices=2)
        torch.save(weights(net), tmp_path / f"{net.global_rank}.pt")

    assert in_forked_processes(fit, 2) == [0, 0]
    expected = weights(run(LUCIR(**NUMBERS), lr=0.1, callbacks=[ExperienceReplay(30, 5)]))
    for name, value in torch.load(tmp_path / "1.pt").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": -1.0}, "`strength` is -1.0; give at least 0"),
        ({"rivals": 0}, "`rivals` is 0; give at least 1"),
        ({"scale": 0.0}, "`scale` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LUCIR(**arguments)
