from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cl.nn import SliceGuard

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
    guard = SliceGuard(parameter, rows)

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
    guard = SliceGuard(parameter, torch.zeros(0, dtype=torch.long))
    parameter.data.add_(1)
    guard.restore()
    assert (parameter == 2).all()
