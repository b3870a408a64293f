"""LwF: the numbers of its specification, and whole runs against the formula typed out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import LwF
from lightning_cl.callbacks.distillation.lwf import AnswerTeacher
from lightning_cl.nn.losses import distillation

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, make_online, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_worked_example_in_three_forms() -> None:
    """Teacher (1, 0), student (0, 0), T = 2: the form with T^2, that without, and the cross-entropy without T^2."""
    teacher, student = torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)
    ours = distillation(student, teacher, 2.0)
    p = F.softmax(teacher / 2, dim=1)
    assert ours.item() == pytest.approx(0.121200, abs=1e-6)
    assert ours.item() / 4 == pytest.approx(0.030300, abs=1e-6)
    assert ours.item() / 4 - (p * p.log()).sum().item() == pytest.approx(0.693147, abs=1e-6)


def test_a_hot_teacher_compares_centred_logits() -> None:
    """T to infinity: ``mean_c (z - mean z)^2 / 2`` between the two."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert distillation(student, teacher, 1e4).item() == pytest.approx((gap**2).mean().item() / 2, rel=1e-3)


class LwFByHand(ByHand):
    """Keeps the network of the task before."""

    def __init__(self, net: Net, strength: float, temperature: float, seen: bool) -> None:
        self.strength, self.temperature, self.teacher = strength, temperature, None
        super().__init__(net, seen)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.cross_entropy(x, y)
        if self.teacher is None:
            return loss
        p, q = (F.softmax(net(x)[:, self.old] / self.temperature, dim=1) for net in (self.teacher, self.net))
        divergence = (p.detach() * (p.detach().log() - q.log())).sum(dim=1).mean()
        if len(self.first) < self.task:  # the student is the teacher in the first step of a task
            self.first.append(float(divergence))
        return loss + self.strength * self.temperature**2 * divergence

    def end(self, x: Tensor, y: Tensor) -> None:
        self.teacher = self.copy()
        self.first = getattr(self, "first", [])


@pytest.mark.parametrize(("temperature", "mask"), [(2.0, "task"), (1.0, "seen")])
def test_a_run_equals_the_formula(temperature: float, mask: Any) -> None:
    net = run(LwF(1.5, temperature, train_mask=mask))
    hand = LwFByHand(net, 1.5, temperature, mask == "seen")
    assert_close(net, hand)
    assert hand.first == pytest.approx([0.0, 0.0], abs=1e-12)
    assert_differs(net, run(LwF(0.0, train_mask=mask)))


class PerTaskByHand(LwFByHand):
    """A softmax over the two classes of every earlier task; the sum of the divergences."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.cross_entropy(x, y)
        for task in range(self.task):
            columns = slice(2 * task, 2 * task + 2)
            p, q = (F.softmax(net(x)[:, columns] / 2, dim=1) for net in (self.teacher, self.net))
            loss = loss + 1.5 * 4 * (p.detach() * (p.detach().log() - q.log())).sum() / len(x)
        return loss


def test_the_task_incremental_form_equals_the_formula() -> None:
    net = run(LwF(1.5, per_task=True))
    assert_close(net, PerTaskByHand(net, 1.5, 2.0, False))
    assert_differs(net, run(LwF(1.5)))


class ReverseByHand(LwFByHand):
    """The divergence from the student to the teacher."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.cross_entropy(x, y)
        if self.teacher is None:
            return loss
        p, q = (F.softmax(net(x)[:, self.old], dim=1) for net in (self.teacher, self.net))
        return loss + 1.5 * (q * (q / p.detach()).log()).sum() / len(x)


def test_the_other_direction_equals_the_formula() -> None:
    net = run(LwF(1.5, 1.0, direction="reverse"))
    assert_close(net, ReverseByHand(net, 1.5, 1.0, False))
    assert_differs(net, run(LwF(1.5, 1.0)))


def test_the_model_before_the_first_task_teaches_no_class() -> None:
    with pytest.raises(ValueError, match='it knows none of the classes of this stream; set `reference="last"`'):
        run(LwF(reference="start"))


class Online(Net):
    """Types out what LwF adds to the loss in every step of an online stream, and keeps what it adds."""

    def __init__(self, came: list[list[int]]) -> None:
        super().__init__()
        self.came, self.expected, self.found = came, list[float](), list[float]()

    @torch.no_grad()
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, old = batch[0].flatten(1), self.came[: len(self.tasks) - 1]
        then = dict(self.continual.parts["lwf"].weights.items())  # type: ignore[operator, index, union-attr]
        z_then = torch.tanh(x @ then["body.1.weight"].T + then["body.1.bias"]) @ then["fc.weight"].T + then["fc.bias"]
        z = self.body(batch[0]) @ self.fc.weight.T + self.fc.bias
        pairs = [(F.softmax(z_then[:, c] / 2, dim=1), F.softmax(z[:, c] / 2, dim=1)) for c in old]
        self.expected.append(sum(1.5 * 4 * float((p * (p / q).log()).sum()) / len(x) for p, q in pairs))
        with torch.enable_grad():
            return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.found.append(float(self.trainer.callback_metrics.get("lwf", 0.0)))


def test_without_boundaries_a_class_belongs_to_the_task_that_held_it_first() -> None:
    """One softmax of the classes that came with each earlier task, although 1 and 2 come again."""
    net = Online([[1, 2], [3, 4, 5], [0]])
    net.load_state_dict(start())
    run(LwF(1.5, per_task=True), net=net, stream=make_online())
    assert net.found == pytest.approx(net.expected, abs=1e-9)
    assert max(net.found) > 1e-3


def test_the_teacher_is_in_no_optimiser_and_saved_once() -> None:
    method = LwF(1.0)
    net = run(method)
    teacher = net.continual.parts["lwf"]
    assert isinstance(teacher, AnswerTeacher)
    assert not list(teacher.parameters())
    assert sum(key.endswith("fc/weight") for key in net.state_dict()) == 1
    kept = dict(teacher.weights.items())
    assert all(torch.equal(kept[name], value) for name, value in weights(net).items())


def test_no_pass_of_the_teacher_before_there_is_one() -> None:
    teacher = AnswerTeacher(Net(), 1.0, 2.0)
    assert teacher.losses(SimpleNamespace(old_classes=None)) == {}  # type: ignore[arg-type]


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(LwF(0.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": -0.1}, "`strength` is -0.1; give at least 0"),
        ({"temperature": 0.0}, "`temperature` is 0.0; give a number above 0"),
        ({"direction": "up"}, "`direction` is 'up'; give"),
        ({"reference": "first"}, "`reference` is 'first'; give"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LwF(**arguments)
