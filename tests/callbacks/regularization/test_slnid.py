"""SLNID: its term and its importances on a run by hand, and without inhibition it is MAS."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import MAS, SLNID
from lightning_cl.nn.decorrelation import local_inhibition
from lightning_cl.nn.unit_outputs import activation_names

from ..by_hand import ByHand, Net, assert_close, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_without_inhibition_it_is_mas() -> None:
    found, expected = weights(run(SLNID(0.5, inhibition=0.0))), weights(run(MAS(0.5)))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_without_strength_and_inhibition_it_is_fine_tuning() -> None:
    assert_fine_tuning(SLNID(0.0, inhibition=0.0))


class Inhibited(ByHand):
    """Without the penalty of MAS."""

    def __init__(self, net: Net, inhibition: float, scale: float) -> None:
        self.inhibition, self.scale, self.importance = inhibition, scale, torch.zeros(9, dtype=torch.float64)
        super().__init__(net)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.net.body(x).relu()
        term = local_inhibition(h, self.importance, self.scale * 9) / 9
        return self.cross_entropy(x, y) + self.inhibition * term

    def end(self, x: Tensor, y: Tensor) -> None:
        total = torch.zeros(9, dtype=torch.float64)
        for sample in x:
            h = self.net.body(sample[None]).detach().requires_grad_()
            self.net.fc(h)[0, : (self.task + 1) * 2].square().sum().backward()
            total += h.grad[0].abs() / len(x)
        self.importance = self.importance + total


def test_a_run_is_the_formulas() -> None:
    net = run(SLNID(0.0, inhibition=0.7, scale=0.2))
    hand = Inhibited(net, 0.7, 0.2)
    assert_close(net, hand, 1e-6)
    torch.testing.assert_close(
        net.continual.parts["slnid"].units["body.2"].double(), hand.importance, rtol=1e-5, atol=1e-6
    )


class Gated(Net):
    """As the networks of Hugging Face: the activation stands behind a layer that runs after it."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out, self.act = nn.Linear(9, 14).double(), nn.Linear(14, 9).double(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.out(self.act(self.into(self.body(x)))))


def test_units_are_those_that_answer() -> None:
    assert activation_names(Gated()) == ["body.2", "act"]
    units = run(SLNID(0.5, inhibition=0.7), net=Gated()).continual.parts["slnid"].units
    assert {name: len(value) for name, value in units.items()} == {"body.2": 9, "act": 14}
    assert all(bool((value > 0).any()) for _, value in units.items())


class Bare(Net):
    """Without an activation as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.body = self.body[:2]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).tanh())


def test_without_activation_layers_it_says_so() -> None:
    with pytest.raises(ValueError, match="Bare has no such layer"):
        run(SLNID(), net=Bare())
