"""Softplus against doubles of Python, and its gradients."""

from __future__ import annotations

import math

import torch

from lightning_cl.nn.softplus import softplus


def test_softplus_against_doubles() -> None:
    """Where `1 + exp(x)` rounds to 1, too; and its gradient, the sigmoid."""
    values = torch.cat([torch.linspace(-90, 90, 1801), torch.tensor([0.0, -17.5, -200.0, 300.0])])
    exact = [max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in values.double().tolist()]
    expected = torch.tensor(exact, dtype=torch.float64)
    torch.testing.assert_close(softplus(values).double(), expected, rtol=4e-7, atol=1e-38)
    x = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softplus, x)
    assert torch.autograd.gradgradcheck(softplus, x)
    with torch.no_grad():
        assert torch.equal(softplus(x), softplus(x.detach()))
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(softplus))(x), x.detach().sigmoid())
    (of_many,) = torch.autograd.grad(torch.func.vmap(softplus)(x).sum(), x)
    torch.testing.assert_close(of_many, x.detach().sigmoid())
