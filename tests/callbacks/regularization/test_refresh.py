"""Refresh learning: its move against the official code's arithmetic, a whole run without noise, and its Fisher."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close as close

from lightning_cl.callbacks import Refresh
from lightning_cl.nn import Guard
from lightning_cl.nn.unlearning import unlearn_
from lightning_cl.training import Step

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_move_is_that_of_the_official_arithmetic() -> None:
    """A step of SGD with rate 0.01 on a copy, its way scaled to the weight's length, and the inverse Fisher."""
    torch.manual_seed(0)
    theta, g, fisher, normal = (torch.randn(3, 4, dtype=torch.float64) for _ in range(4))
    fisher = fisher.square() * 1000
    v = 0.01 * g  # of descent on minus the loss
    u = theta.norm() / (v.norm() + 1e-20) * v
    expected = theta + 1e-2 * (1 / (1 + 0.001 * fisher)) * (u + 0.001 * normal)
    found = theta.clone()
    unlearn_(found, g, fisher, normal, 1e-2, 1e-3, 1e-3)
    close(found, expected, rtol=1e-12, atol=1e-12)
    assert (found - theta).norm() <= 1e-2 * (theta.norm() + 0.001 * normal.norm())


def test_the_loss_rises_along_the_move() -> None:
    w, x, y = (
        torch.randn(4, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(5, 4).double(),
        torch.arange(5) % 3,
    )
    loss = F.cross_entropy(x @ w, y)
    (g,) = torch.autograd.grad(loss, w)
    with torch.no_grad():
        unlearn_(w, g, torch.rand(4, 3).double(), torch.zeros(4, 3).double(), 1e-4, 0.0, 1.0)
    assert F.cross_entropy(x @ w, y) > loss


@pytest.mark.parametrize("zero", [torch.zeros(3), torch.zeros(())])
def test_without_a_gradient_only_noise_is_left(zero: Tensor) -> None:
    weight = torch.ones_like(zero)
    unlearn_(weight, zero, zero, torch.ones_like(zero), 0.5, 0.1, 1.0)
    close(weight, torch.full_like(zero, 1.05))


class RefreshByHand(ByHand):
    """Without noise; the head's rows that are not trained do not move."""

    def __init__(self, net: Net, delta: float, damping: float, decay: float) -> None:
        self.delta, self.damping, self.decay = delta, damping, decay
        self.fisher = {name: torch.zeros_like(p) for name, p in Net().double().named_parameters()}
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        gradients, before = self.gradients(self.cross_entropy(x, y)), weights(self.net)
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                up = gradients[name] / gradients[name].norm() * p.norm()
                p += self.delta * up / (1 + self.damping * self.fisher[name])
            for name, p in self.net.fc.named_parameters():
                kept = before[f"fc.{name}"].clone()
                kept[self.classes] = p[self.classes]
                p.copy_(kept)
        return self.cross_entropy(x, y)

    def end(self, x: Tensor, y: Tensor) -> None:
        total = {name: torch.zeros_like(f) for name, f in self.fisher.items()}
        for image, label in zip(x, y, strict=True):
            log_p = F.log_softmax(self.net(image[None])[0, self.classes], dim=0)[label]
            for name, gradient in self.gradients(log_p).items():
                total[name] += log_p.exp().detach() * gradient**2 / len(x)
        self.fisher = {name: self.decay * self.fisher[name] + f for name, f in total.items()}


def test_a_run_equals_the_formula() -> None:
    net = run(Refresh(0.01, noise=0.0, damping=50.0, decay=0.3, train_mask="seen"), lr=0.1)
    assert_close(net, RefreshByHand(net, 0.01, 50.0, 0.3))
    assert_differs(net, run(Refresh(0.01, noise=0.0, damping=0.0, train_mask="seen"), lr=0.1))


def test_noise_is_drawn_anew_and_the_same_in_a_second_run() -> None:
    one, same = (weights(run(Refresh(0.01, noise=0.5))) for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert_differs(run(Refresh(0.01, noise=0.5)), run(Refresh(0.01, noise=0.0)))


class Normed(Net):
    """With batch norm, which counts the batches it sees."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.BatchNorm1d(9), nn.Tanh())


def test_batch_norm_sees_every_batch_once() -> None:
    torch.manual_seed(0)
    net = run(Refresh(), net=Normed().double())
    assert int(net.body[2].num_batches_tracked) == sum(len(task) for task in net.tasks) == 18


def test_without_a_move_it_is_fine_tuning() -> None:
    assert_fine_tuning(Refresh(0.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"delta": -1.0}, "`delta` is -1.0; give at least 0"),
        ({"noise": -1.0}, "`noise` is -1.0; give at least 0"),
        ({"decay": 1.5}, r"`decay` is 1.5; give a number in \[0, 1\]"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Refresh(**arguments)


def test_what_is_protected_stands_as_it_is_when_the_step_begins() -> None:
    """Noise has no part in the pass of a step through weights that must not move."""
    net = run(Refresh(0.01, noise=0.5, train_mask="seen"))
    part, before = net.continual.parts["refresh"], weights(net)
    step = Step(net, (torch.rand(4, 1, 4, 4).double(), torch.arange(4)))
    net.continual.guards = [Guard(net.fc.weight, torch.tensor([1, 4]))]
    with torch.no_grad():
        part.start_step(step)
    moved = (weights(net)["fc.weight"] != before["fc.weight"]).any(1)
    assert moved.tolist() == [True, False, True, True, False, True]
