"""Binary weights in field space: closed forms, the moments of the drawn outputs, and the anchor at the prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.binary_weights import BinaryLinear, field_kl, metaplastic


@pytest.mark.parametrize(("fields", "prior", "nats"), [(0.5, 0.0, 0.110944), (1.0, 0.5, 0.067131), (0.5, 0.5, 0.0)])
def test_divergence_of_the_specification_and_of_two_outcomes(fields: float, prior: float, nats: float) -> None:
    found = field_kl(torch.tensor([fields], dtype=torch.float64), torch.tensor([prior], dtype=torch.float64))
    assert float(found) == pytest.approx(nats, abs=5e-7)
    p, q = (1 / (1 + math.exp(-2 * theta)) for theta in (fields, prior))  # of the weight 1
    assert float(found) == pytest.approx(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)), abs=1e-12)


def test_near_the_prior_it_is_an_elastic_weight_whose_stiffness_is_its_variance() -> None:
    prior = torch.tensor([-1.5, 0.0, 0.3, 2.0], dtype=torch.float64)
    fields = (prior + 1e-3).requires_grad_()
    by_hand = (0.5 * (1 - prior.tanh() ** 2) * 1e-6).sum()
    assert_close(field_kl(fields, prior), by_hand, rtol=5e-3, atol=0)
    anchored = prior.clone().requires_grad_()
    (at_anchor,) = torch.autograd.grad(field_kl(anchored, prior), anchored)
    assert_close(at_anchor, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)


def test_a_weight_with_a_strong_field_is_frozen() -> None:
    fields = torch.tensor([10.5, -12.0], dtype=torch.float64, requires_grad=True)
    (pull,) = torch.autograd.grad(field_kl(fields, fields.detach() - 1), fields)
    assert (1 - fields.detach().tanh() ** 2 < 1e-8).all()
    assert (pull.abs() < 1e-7).all()
    assert float(field_kl(torch.tensor([300.0]), torch.tensor([-300.0]))) == pytest.approx(600)  # nothing overflows


def test_drawn_outputs_have_the_moments_of_all_binary_weights() -> None:
    torch.manual_seed(0)
    layer, x = BinaryLinear(4, 1, scale=1.0).double(), torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64)
    weights = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)  # all 16
    chances = (weights * layer.fields.detach()).sum(1).exp()
    outputs, chances = weights @ x[0] / 2, chances / chances.sum()
    mean = (chances * outputs).sum()
    with torch.no_grad():
        drawn = layer(x.expand(40_000, 4))
        assert_close(layer.eval()(x)[0, 0], mean)
    assert float(drawn.mean()) == pytest.approx(float(mean), abs=0.02)
    assert float(drawn.var()) == pytest.approx(float((chances * (outputs - mean) ** 2).sum()), rel=0.03)


def test_the_likeliest_weights_are_signs() -> None:
    layer = BinaryLinear(2, 1, answer="sign").eval()
    with torch.no_grad():
        layer.fields.copy_(torch.tensor([[-0.2, 3.0]]))
    assert_close(layer(torch.tensor([[1.0, 5.0]])), torch.tensor([[4 / math.sqrt(2)]]))


def test_the_posterior_becomes_the_prior() -> None:
    layer = BinaryLinear(3, 2)
    assert float(layer.divergence().detach()) > 0  # from fields of 0, which say nothing
    layer.consolidate()
    assert float(layer.divergence().detach()) == pytest.approx(0, abs=1e-6)
    assert torch.equal(layer.state_dict()["prior"], layer.fields)


def test_metaplastic_steps_slow_down_towards_zero_only() -> None:
    fields, step = torch.tensor([1.0, 1.0, -1.0]), torch.tensor([-0.5, 0.5, 0.5])
    assert_close(
        metaplastic(step, fields, 2.0),
        torch.tensor([-0.5 * (1 - math.tanh(2) ** 2), 0.5, 0.5 * (1 - math.tanh(2) ** 2)]),
    )
    assert torch.equal(metaplastic(step, fields, 0.0), step)
