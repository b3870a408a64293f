"""SI, MAS and L2-SP, which differ in the importance of their anchor: worked examples, and runs against the formulas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close as close

from lightning_cl.callbacks import EWC, L2SP, MAS, SynapticIntelligence
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor
from lightning_cl.callbacks.regularization.mas import sensitivity
from lightning_cl.callbacks.regularization.si import PathPenalty

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, quadratic, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Weight(nn.Module):
    """One weight vector."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))


def test_a_weight_of_another_optimiser_is_left_alone() -> None:
    """Else several optimisers would pull each weight several times a step."""
    module = nn.ModuleDict({"a": Weight(1.0), "b": Weight(1.0)})
    anchor = QuadraticAnchor(module, 2.0)
    anchor.anchor.take({"a.w": torch.zeros(1), "b.w": torch.zeros(1)})
    anchor.importance.take({"a.w": torch.ones(1), "b.w": torch.ones(1)})
    for parameter in module.parameters():
        parameter.grad = torch.zeros(1)
    anchor.edit_gradients(module, torch.optim.SGD(module["a"].parameters(), lr=1.0))
    close(module["a"].w.grad, torch.tensor([2.0]))
    close(module["b"].w.grad, torch.zeros(1))


def test_the_worked_example_of_si() -> None:
    """Two steps of -0.05 with the gradients 1 and 0.6, xi = 0.1: path 0.08, importance 0.727273."""
    module = Weight(0.0)
    part = PathPenalty(module, 0.5, 0.1)
    part.start_task(module, None)
    for gradient in (1.0, 0.6):
        module.w.grad = torch.tensor([gradient])
        part.edit_gradients(module, None)
        module.w.data -= 0.05
        part.after_step(module, None)
    close(dict(part.path.items())["w"], torch.tensor([0.08]))
    part.end_task(module, None)  # type: ignore[arg-type]
    close(dict(part.importance.items())["w"], torch.tensor([0.727273]))
    assert not dict(part.path.items())["w"].any()


def test_what_raised_the_loss_is_not_important() -> None:
    module = Weight(0.0)
    part = PathPenalty(module, 0.5, 0.1)
    module.w.grad = torch.tensor([1.0])
    part.edit_gradients(module, None)
    module.w.data += 0.05
    part.after_step(module, None)
    part.end_task(module, None)  # type: ignore[arg-type]
    assert not dict(part.importance.items())["w"].any()


@pytest.mark.parametrize(("granularity", "expected"), [("sample", [4.0, 4.0]), ("batch", [2.0, 4.0])])
def test_the_worked_example_of_mas(granularity: Any, expected: list[float]) -> None:
    """``f = (1, 2) x`` on (1, 1) and (1, -1): in a batch of two, the first weight's gradients cancel in part."""

    class Line(Weight):
        trainer = SimpleNamespace(world_size=1)
        continual = SimpleNamespace(mask=SimpleNamespace(eval_allowed=torch.tensor([True])))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w[:, None]

    batch = (torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.zeros(2), None)
    data = SimpleNamespace(batches=lambda: [batch], mean=lambda total, count: total / count)
    close(sensitivity(Line(1.0, 2.0), data, granularity)["w"], torch.tensor(expected))  # type: ignore[arg-type]


class AnchorByHand(ByHand):
    """``c * sum F (w - a)^2`` in the loss."""

    def __init__(self, net: Net, c: float) -> None:
        self.c, self.anchor = c, start()
        self.importance = {name: torch.zeros_like(value) for name, value in start().items()}
        super().__init__(net)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.cross_entropy(x, y) + self.c * quadratic(self.net, self.anchor, self.importance)


class SIByHand(AnchorByHand):
    def __init__(self, net: Net, c: float, xi: float) -> None:
        self.xi, self.path = xi, {name: torch.zeros_like(value) for name, value in start().items()}
        super().__init__(net, c)

    def edit(self, x: Tensor, y: Tensor) -> None:
        self.found = self.gradients(self.cross_entropy(x, y))

    def stepped(self, before: dict[str, Tensor]) -> None:
        for name, value in weights(self.net).items():
            self.path[name] -= self.found[name] * (value - before[name])

    def end(self, x: Tensor, y: Tensor) -> None:
        for name, value in weights(self.net).items():
            away = value - self.anchor[name]
            self.importance[name] = self.importance[name] + self.path[name].clamp(min=0) / (away**2 + self.xi)
            self.path[name] = torch.zeros_like(value)
        self.anchor = weights(self.net)


class MASByHand(AnchorByHand):
    def end(self, x: Tensor, y: Tensor) -> None:
        for image in x:
            length = (self.net(image[None])[0, : self.classes.stop] ** 2).sum()
            for name, gradient in self.gradients(length).items():
                self.importance[name] = self.importance[name] + gradient.abs() / len(x)
        self.anchor = weights(self.net)


class L2ByHand(AnchorByHand):
    def end(self, x: Tensor, y: Tensor) -> None:
        self.importance = {name: torch.ones_like(value) for name, value in start().items()}
        for name in ("fc.weight", "fc.bias"):
            self.importance[name][self.classes.stop :] = 0.0
        self.anchor = weights(self.net)


class L2FromTheStartByHand(AnchorByHand):
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.importance = {n: torch.full_like(v, float(not n.startswith("fc"))) for n, v in start().items()}
        return super().loss(x, y)


class L2FromBothByHand(L2ByHand):
    """The weights before the first task, without the head; from its end on those of the last."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.classes.start:
            self.importance = {n: torch.full_like(v, float(not n.startswith("fc"))) for n, v in start().items()}
        return super().loss(x, y)


RUNS = {
    "si": (SynapticIntelligence(3.0, 0.5), lambda net: SIByHand(net, 3.0, 0.5)),
    "mas": (MAS(0.02), lambda net: MASByHand(net, 0.02)),
    "l2sp": (L2SP(0.4), lambda net: L2ByHand(net, 0.2)),
    "l2sp from both": (L2SP(0.4, "both"), lambda net: L2FromBothByHand(net, 0.2)),
    "l2sp from the start": (L2SP(0.4, "start"), lambda net: L2FromTheStartByHand(net, 0.2)),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_equals_the_formulas(name: str) -> None:
    method, by_hand = RUNS[name]
    net = run(method)
    assert_close(net, by_hand(net))
    assert_differs(net, run(EWC(0.0)))


@pytest.mark.parametrize("method", [SynapticIntelligence(0.0), MAS(0.0), L2SP(0.0), L2SP(0.0, "start")])
def test_without_strength_it_is_fine_tuning(method: Any) -> None:
    assert_fine_tuning(method)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SynapticIntelligence(-1.0), "`strength` is -1.0; give at least 0"),
        (lambda: SynapticIntelligence(damping=0.0), "`damping` is 0.0; give a number above 0"),
        (lambda: MAS(decay=2.0), r"`decay` is 2.0; give a number in \[0, 1\]"),
        (lambda: MAS(granularity="class"), "`granularity` is 'class'; give one of 'sample', 'batch'"),
        (lambda: L2SP(starting_point="first"), "`starting_point` is 'first'; give one of 'last', 'start'"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
