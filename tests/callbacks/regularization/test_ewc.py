"""EWC: the numbers of its specification, and whole runs against the formulas typed out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close as close

from lightning_cl.callbacks import EWC
from lightning_cl.callbacks.regularization.ewc import FisherPenalty

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, quadratic, run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("strength", "expected"), [(100.0, [20.0, -10.0]), (200.0, [40.0, -20.0])])
def test_the_gradient_of_the_worked_example(strength: float, expected: list[float]) -> None:
    """``F = (2, 0.5)``, away from the anchor by ``(0.1, -0.2)``; code bases without the factor 1/2 pull twice."""
    module = nn.Module()
    module.w = nn.Parameter(torch.tensor([1.1, 1.8]))
    penalty = FisherPenalty(module, strength, 1.0, "empirical", "last")
    penalty.anchor.take({"w": torch.tensor([1.0, 2.0])})
    penalty.importance.take({"w": torch.tensor([2.0, 0.5])})
    module.w.grad = torch.zeros(2)
    penalty.edit_gradients(module, None)
    close(module.w.grad, torch.tensor(expected))


class Slope(nn.Module):
    """Two logits ``(0, w x)``: at ``w = 0`` the samples' gradients are of opposite sign for opposite inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x), self.w * x], dim=1)


@pytest.mark.parametrize(("kind", "expected"), [("empirical", 1.0), ("true", 1.0), ("batch", 0.0)])
def test_gradients_of_opposite_sign(kind: Any, expected: float) -> None:
    """Two samples with the gradients +1 and -1: their squares count, not the square of their mean."""
    module, batch = Slope(), (torch.tensor([2.0, -2.0]), torch.tensor([1, 1]), None)
    penalty = FisherPenalty(module, 1.0, 1.0, kind, "last")
    data = SimpleNamespace(batches=lambda: [batch], mean=lambda total, count: total / count)
    penalty.end_task(module, data)  # type: ignore[arg-type]
    close(dict(penalty.importance.items())["w"], torch.tensor(expected))


def fisher(net: Net, x: Tensor, y: Tensor, classes: slice, kind: str) -> dict[str, Tensor]:
    """The diagonal over the classes seen, one sample after the other."""
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for image, label in zip(x, y, strict=True):
        log_p = F.log_softmax(net(image[None])[0, classes], dim=0)
        for c in [int(label)] if kind == "empirical" else range(len(log_p)):
            found = torch.autograd.grad(log_p[c], list(net.parameters()), retain_graph=True)
            share = 1.0 if kind == "empirical" else float(log_p[c].exp())
            for sums, gradient in zip(total.values(), found, strict=True):
                sums.add_(gradient**2, alpha=share / len(x))
    return total


class EWCByHand(ByHand):
    """One term for each earlier task, as in the paper, or one in all."""

    def __init__(self, net: Net, strength: float, decay: float, kind: str, online: bool) -> None:
        self.strength, self.decay, self.kind, self.online = strength, decay, kind, online
        self.terms: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        super().__init__(net)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        pulls = [quadratic(self.net, *term) for term in self.terms]
        return self.cross_entropy(x, y) + self.strength / 2 * sum(pulls)

    def end(self, x: Tensor, y: Tensor) -> None:
        found = fisher(self.net, x, y, slice(0, self.classes.stop), self.kind)
        if self.online and self.terms:
            found = {name: self.decay * old + found[name] for name, old in self.terms.pop()[1].items()}
        self.terms.append(({name: p.detach().clone() for name, p in self.net.named_parameters()}, found))


@pytest.mark.parametrize(
    ("decay", "kind", "online"),
    [(0.7, "empirical", True), (1.0, "true", True), (1.0, "empirical", False)],
)
def test_a_run_equals_the_formulas(decay: float, kind: Any, online: bool) -> None:
    strength = 8.0
    net = run(EWC(strength, decay, kind, "last" if online else "each"))
    assert_close(net, EWCByHand(net, strength, decay, kind, online))
    assert_differs(net, run(EWC(0.0)))


class StepsByHand(EWCByHand):
    """Squares of the gradients that the steps had before the pull, no pass over the data."""

    squares: list[dict[str, Tensor]]

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        found = {name: g**2 for name, g in self.gradients(self.cross_entropy(x, y)).items()}
        self.squares = [*getattr(self, "squares", []), found]
        return super().loss(x, y)

    def end(self, x: Tensor, y: Tensor) -> None:
        mean = {name: torch.stack([s[name] for s in self.squares]).mean(0) for name in self.squares[0]}
        before = self.terms.pop()[1] if self.terms else dict.fromkeys(mean, torch.zeros(()))
        anchor = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self.terms.append((anchor, {name: before[name] + mean[name] for name in mean}))
        self.squares = []


def test_squares_of_the_training_steps() -> None:
    net = run(EWC(8.0, fisher="steps"))
    assert_close(net, StepsByHand(net, 8.0, 1.0, "steps", True))


@pytest.mark.parametrize("kind", ["empirical", "steps"])
def test_without_strength_it_is_fine_tuning(kind: Any) -> None:
    assert_fine_tuning(EWC(0.0, fisher=kind))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strength": -1.0}, "`strength` is -1.0; give at least 0"),
        ({"decay": 1.5}, r"`decay` is 1.5; give a number in \[0, 1\]"),
        ({"fisher": "exact"}, "`fisher` is 'exact'; give one of 'true', 'sampled'"),
        ({"anchor": "first"}, "`anchor` is 'first'; give one of 'last', 'each'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EWC(**arguments)
