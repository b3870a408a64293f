"""LwF.MC: the number of its specification, and a whole run against the formula typed out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import FineTuning, LwFMC
from lightning_cl.nn.losses import binary_distillation

from ..by_hand import TaughtByHand, assert_close, assert_differs, run

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_worked_example() -> None:
    """Logits (1, -1, 2), targets (0.8, 0, 1), the first of them a teacher's: 0.317817."""
    student, teacher = torch.tensor([[1.0, -1.0, 2.0]]), torch.tensor([[0.8, 0.3, 0.1]]).logit()
    every, taught = torch.ones(3, dtype=torch.bool), torch.tensor([True, False, False])
    found = binary_distillation(student, torch.tensor([2]), every, teacher, taught)
    assert found.item() == pytest.approx(0.317817, abs=1e-6)


def test_classes_that_do_not_count() -> None:
    """Their logits change neither value nor gradient."""
    student = torch.tensor([[1.0, -1.0, 7.0]], requires_grad=True)
    columns = torch.tensor([True, True, False])
    found = binary_distillation(student, torch.tensor([0]), columns)
    assert found.item() == pytest.approx(-torch.tensor(1.0).sigmoid().log().item())  # both columns are equally right
    found.backward()
    assert student.grad is not None
    assert student.grad[0, 2] == 0


class LwFMCByHand(TaughtByHand):
    """One-hot labels, of which the columns of old classes are replaced by the teacher's sigmoids."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        p, t = self.net(x).sigmoid(), torch.zeros(len(x), 6, dtype=torch.float64)
        t[range(len(x)), y] = 1
        if self.teacher is not None:
            t[:, self.old] = self.teacher(x).detach().sigmoid()[:, self.old]
        p, t = p[:, self.classes], t[:, self.classes]
        return -(t * p.log() + (1 - t) * (1 - p).log()).sum() / t.numel()


def test_a_run_equals_the_formula() -> None:
    net = run(LwFMC())
    assert_close(net, LwFMCByHand(net, seen=True))
    assert_differs(net, run(FineTuning(train_mask="seen", reset_optimizer=True)))
