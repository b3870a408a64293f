from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cl.nn import ElementMask, random_elements, smallest_elements, trained


def masked():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    mask = ElementMask(trained(module))
    for _, own in mask.items():
        own |= random_elements(own.shape, 0.5, torch.Generator().manual_seed(1))
    return module, mask


def test_a_mask_of_a_module_is_saved_with_it():
    module, mask = masked()
    fresh = ElementMask(trained(module))
    assert not any(own.any() for _, own in fresh.items())
    fresh.load_state_dict(mask.state_dict())
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(fresh.items(), mask.items(), strict=True))
    assert {name for name, _ in mask.items()} == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert set(mask.state_dict()) == {"0/weight", "0/bias", "1/weight", "1/bias"}


def test_gradients_weights_and_guards():
    module, mask = masked()
    weights = trained(module)
    before = {name: w.detach().clone() for name, w in weights.items()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.5)
    guards = list(mask.guards(weights))
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.ones(2, 3)).sum().backward()
        mask.zero_gradients(weights)
        optimizer.step()
        for guard in guards:
            guard.restore()
    for name, own in mask.items():
        assert (weights[name].grad[own] == 0).all()
        assert torch.equal(weights[name][own], before[name][own])
        assert (weights[name][~own] != before[name][~own]).all()
    mask.zero_gradients({name: w.detach() for name, w in weights.items()})  # none: nothing to do


def test_the_smallest_elements_are_counted_exactly():
    weight, free = torch.tensor([0.1, -0.5, 0.2, 0.05]), torch.ones(4, dtype=torch.bool)
    assert smallest_elements(weight, 0.5, free).tolist() == [True, False, False, True]  # PackNet's worked example
    assert smallest_elements(weight, 0.5).tolist() == [True, False, False, True]
    free[3] = False
    assert smallest_elements(weight, 0.5, free).tolist() == [True, False, False, False]
    same = smallest_elements(torch.ones(3, 3), 0.5, torch.ones(3, 3, dtype=torch.bool))
    assert same.flatten().tolist() == [True] * 4 + [False] * 5


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 6), (1.0, 12)])
def test_random_elements_are_counted_exactly(share, count):
    masks = [random_elements((3, 4), share, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert masks[0].sum() == count
    assert torch.equal(masks[0], masks[1])
    assert masks[0].shape == (3, 4)
    assert torch.equal(masks[0], masks[2]) == (share != 0.5)
