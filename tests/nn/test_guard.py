from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cl.nn import Guard, SliceGuard
from lightning_cl.nn.guard import all_rows_but

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW([p], lr=0.1, weight_decay=0.5),
    "sgd": lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam([p], lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_protected_rows_stay_bit_for_bit_and_the_others_move(name):
    parameter = nn.Parameter(torch.randn(6, 3))
    optimizer = OPTIMIZERS[name](parameter)
    parameter.square().sum().backward()
    optimizer.step()  # momentum and moments for all rows
    before, rows = parameter.detach().clone(), torch.tensor([0, 4, 5])
    guard = Guard(parameter, rows)

    optimizer.zero_grad()
    parameter[1:4].square().sum().backward()
    optimizer.step()

    assert not torch.equal(parameter[rows], before[rows])  # which is why the guard is there
    guard.restore()
    assert torch.equal(parameter[rows], before[rows])
    assert (parameter[1:4] != before[1:4]).all()
    assert parameter.requires_grad


def test_nothing_to_protect():
    parameter = nn.Parameter(torch.ones(2, 2))
    guard = Guard(parameter, torch.zeros(0, dtype=torch.long))
    parameter.data.add_(1)
    guard.restore()
    assert (parameter == 2).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_protected_elements_stay_bit_for_bit_and_the_others_move(name):
    parameter = nn.Parameter(torch.randn(6, 3))
    optimizer = OPTIMIZERS[name](parameter)
    parameter.square().sum().backward()
    optimizer.step()
    before, mask = parameter.detach().clone(), torch.rand(6, 3) < 0.5
    mask[0, 0], mask[5, 2] = True, False
    guard = Guard(parameter, mask)
    for _ in range(2):
        optimizer.zero_grad()
        parameter.masked_fill(mask, 0).square().sum().backward()
        optimizer.step()
        assert not torch.equal(parameter[mask], before[mask])
        guard.restore()
        assert torch.equal(parameter[mask], before[mask])
    assert (parameter[~mask] != before[~mask]).all()


def test_all_rows_but_one():
    parameter = nn.Parameter(torch.randn(4, 2))
    same, rows = all_rows_but(parameter, 2)
    assert same is parameter
    assert rows.tolist() == [0, 1, 3]
    assert all_rows_but(nn.Parameter(torch.ones(1, 2)), 0)[1].tolist() == []


def test_a_mask_of_rows_is_no_mask_of_elements():
    with pytest.raises(ValueError, match=r"the mask has the shape \(6,\) and the parameter \(6, 3\)"):
        Guard(nn.Parameter(torch.ones(6, 3)), torch.ones(6, dtype=torch.bool))
    assert SliceGuard is Guard
