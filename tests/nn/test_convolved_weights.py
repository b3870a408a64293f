"""Weights of a task made by convolutions over those of the first: known answers, and how rows are grouped."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Attention
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn.convolved_weights import KernelBank, convolved, row_groups

GROUPS, SIZE = 2, 3


@pytest.fixture
def weight():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def test_without_kernel_the_gate_scales_the_weight(weight):
    none = zeros(GROUPS, SIZE, SIZE), zeros(GROUPS)
    assert_close(convolved(weight, *none, zeros(GROUPS) + 100), weight)
    assert_close(convolved(weight, *none, zeros(GROUPS)), weight / 2)
    assert_close(convolved(weight, *none, torch.tensor([100.0, -100.0]).double()), torch.cat([weight[:3], zeros(3, 5)]))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_every_group_is_convolved_by_its_own_kernel(weight, size):
    generator = torch.Generator().manual_seed(2)
    kernels = torch.randn(GROUPS, size, size, generator=generator, dtype=torch.float64)
    biases, gates = torch.randn(2, GROUPS, generator=generator, dtype=torch.float64)
    expected, reach = zeros(6, 5), size // 2
    for group in range(GROUPS):
        for row in range(3):
            for column in range(5):
                total = biases[group] + torch.sigmoid(gates[group]) * weight[3 * group + row, column]
                for i in range(size):
                    for j in range(size):
                        r, c = row + i - reach, column + j - reach
                        if 0 <= r < 3 and 0 <= c < 5:  # never a row of another group
                            total = total + kernels[group, i, j] * weight[3 * group + r, c]
                expected[3 * group + row, column] = total
    assert_close(convolved(weight, kernels, biases, gates), expected)


def test_a_bank_has_as_many_numbers_as_the_paper_says():
    bank = KernelBank(num_tasks=4, groups=12, size=15, like=zeros(1))
    assert sum(parameter[1].numel() for parameter in bank.parameters()) == 12 * (15 * 15 + 1) + 12
    assert float(bank.kernels.detach().abs().max()) <= 1 / 15
    assert_close(bank.gates[2].sigmoid(), torch.full((12,), 0.7311, dtype=torch.float64), rtol=0, atol=1e-4)
    idle = bank.idle()
    idle.backward()
    assert idle.item() == 0
    assert all(not bool(parameter.grad.any()) for parameter in bank.parameters())


def test_rows_are_grouped_by_head_and_projection():
    net = nn.ModuleDict({"attn": Attention(12, num_heads=4), "fc": nn.Linear(12, 6)})
    assert row_groups(net, "attn.qkv") == 12
    assert row_groups(net, "attn.qkv", heads=2) == 6
    assert row_groups(net, "attn.proj") == 4
    assert row_groups(net, "fc") == 1
    with pytest.raises(ValueError, match=r"the 6 rows of `fc` are no 4 groups of one size"):
        row_groups(net, "fc", heads=4)
