"""Adapters mixed by a router, against the adapters one by one."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lightning_cl.nn.adapters import Adapter, AdapterMixture


def mixture():
    torch.manual_seed(0)
    bank = AdapterMixture(3, 5, 2).double()
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return bank


def alone(bank, slot):
    single = Adapter(1, 5, 2, 1.0, 0.0).double()
    with torch.no_grad():
        for name, parameter in single.named_parameters():
            parameter[0] = getattr(bank, name)[slot]
    return single


def test_the_router_weighs_adapters_by_the_mean_token():
    bank, x, y = mixture(), torch.randn(4, 7, 5).double(), torch.randn(4, 7, 5).double()
    expected, mean = y.clone(), x.mean(dim=1)
    columns = torch.stack([mean @ bank.router[k, 0] + bank.router_bias[k, 0] for k in (0, 2)], dim=1)
    for k, weight in zip((0, 2), columns.softmax(dim=1).T, strict=True):
        expected += weight[:, None, None] * (alone(bank, k).adapted(x, y, [(0,)]) - y)
    assert_close(bank.adapted(x, y, [(0, 2)]), expected)
    both = bank.adapted(torch.cat([x, x]), torch.cat([y, y]), [(0, 2), (1, 2)])
    assert_close(both[:4], expected)
    assert_close(both[4:], bank.adapted(x, y, [(1, 2)]))


def test_one_adapter_has_the_weight_one():
    bank, x, y = mixture(), torch.randn(4, 7, 5).double(), torch.randn(4, 7, 5).double()
    assert_close(bank.adapted(x, y, [(1,)]), alone(bank, 1).adapted(x, y, [(0,)]))
    assert bank.mean.numel() == 0
    bank.keeps_mean = True
    bank.adapted(x, y, [(1,)])
    assert torch.equal(bank.mean, x.mean(dim=1))


def test_sizes_as_published():
    parameters = sum(p[0].numel() for p in AdapterMixture(1, 768, 16).parameters())
    assert parameters == 25360 + 769
