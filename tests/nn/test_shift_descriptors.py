"""Descriptors of features, against layers and an optimiser of PyTorch, and records typed out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from lightning_cl.nn.shift_descriptors import ShiftDescriptors


def descriptors(window=20):
    torch.manual_seed(0)
    return ShiftDescriptors(2, 6, hidden=3, window=window).double()


def pair(found, slot):
    """The layers that a slot's weights are."""
    layers = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 6)).double()
    nn.utils.vector_to_parameters(found.weights[slot].clone(), layers.parameters())
    return layers


def test_fitting_is_sgd_with_momentum_and_decay():
    found, features = descriptors(), torch.randn(10, 6).double()
    layers, other = pair(found, 1), found.weights[0].clone()
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    generator, errors = torch.Generator().manual_seed(7), []
    for _ in range(3):
        for rows in torch.randperm(10, generator=generator).split(4):
            optimizer.zero_grad()
            functional.mse_loss(layers(features[rows]), features[rows]).backward()
            errors += (layers(features[rows]) - features[rows]).square().mean(dim=1).tolist()
            optimizer.step()
        schedule.step()
    found.fit(features, 1, epochs=3, lr=0.1, batch_size=4, seed=7)
    assert_close(found.weights[1], nn.utils.parameters_to_vector(layers.parameters()).detach(), rtol=1e-5, atol=1e-7)
    assert torch.equal(found.weights[0], other)
    assert_close(found.records[1].sort().values, torch.tensor(errors[-20:]).double().sort().values)
    assert found.recorded.tolist() == [0, 30]


def test_distances_are_of_the_record():
    found, features = descriptors(), torch.randn(5, 6).double()
    found.records[0, :3] = torch.tensor([1.0, 2.0, 6.0]).double()  # mean 3, standard deviation sqrt(7)
    found.recorded[0] = 3
    errors = (pair(found, 0)(features) - features).square().mean(dim=1)
    assert_close(
        found.distances(features, (0, 1)), torch.stack([(errors - 3).abs().mean() / 7**0.5, errors.new_zeros(())])
    )
    found.recorded[0] = 2  # no more than two: it knows nothing
    assert found.distances(features, (0,)).tolist() == [0.0]


@pytest.mark.parametrize("sizes", [(3, 4, 5), (30,), (7, 30, 2)])
def test_a_record_holds_the_latest(sizes):
    found, every = descriptors(window=8), []
    for size in sizes:
        features = torch.randn(size, 6).double()
        every += (pair(found, 0)(features) - features).square().mean(dim=1).tolist()
        found.learn(features, 0, lr=0.01)
    assert int(found.recorded[0]) == sum(sizes)
    kept = found.records[0].sort().values
    assert_close(kept, torch.tensor(every[-8:]).double().sort().values)
