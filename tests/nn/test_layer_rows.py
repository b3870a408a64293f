from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from lightning_cl.nn import Guard
from lightning_cl.nn.layer_rows import row_parameters


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2


class Cumulated(nn.Module):
    def forward(self, weight):
        return weight.cumsum(0)


class Noisy(nn.Module):
    def forward(self, weight):
        return weight + torch.randn_like(weight)


class Shared(nn.Module):
    """Adds one trained vector to all rows."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(5))

    def forward(self, weight):
        return weight + self.shift


def registered(part, name="weight"):
    return lambda layer: parametrize.register_parametrization(layer, name, part())


BY_ROW = {
    "none": (lambda layer: layer, 1),
    "weight_norm": (parametrizations.weight_norm, 2),
    "old_weight_norm": (weight_norm, 2),
    "own": (registered(Doubled), 1),
    "noise": (registered(Noisy), 1),
    "pruned": (lambda layer: prune.random_unstructured(layer, "weight", 0.3), 1),
}
ACROSS_ROWS = {
    "spectral_norm": (parametrizations.spectral_norm, "SpectralNorm"),
    "orthogonal": (parametrizations.orthogonal, "Orthogonal"),
    "weight_norm of columns": (lambda layer: parametrizations.weight_norm(layer, dim=1), "WeightNorm"),
    "weight_norm of all": (lambda layer: weight_norm(layer, dim=None), "weight_norm"),
    "old weight_norm of columns": (lambda layer: weight_norm(layer, dim=1), "weight_norm"),
    "old_spectral_norm": (spectral_norm, "spectral_norm"),
    "own": (registered(Cumulated), "Cumulated"),
    "shared": (registered(Shared), "Shared"),
}


@pytest.mark.parametrize("kind", BY_ROW)
def test_rows_of_the_layer_stay_where_those_of_its_parameters_do(kind):
    change, count = BY_ROW[kind]
    torch.manual_seed(0)
    layer = change(nn.Linear(5, 7))
    parameters = row_parameters(layer)
    assert len(parameters) == count

    def answer():
        torch.manual_seed(1)  # the noise of one of them
        return layer(torch.eye(5))

    before, kept = answer().detach(), torch.tensor([0, 3, 6])
    guards = [Guard(p, kept) for p in [*parameters, *row_parameters(layer, "bias")]]
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        answer()[:, [1, 2, 4, 5]].square().sum().backward()
        optimizer.step()
        for guard in guards:
            guard.restore()
    assert torch.equal(answer()[:, kept], before[:, kept])
    assert (answer()[:, [1, 2, 4, 5]] != before[:, [1, 2, 4, 5]]).any(0).all()


@pytest.mark.parametrize("kind", ACROSS_ROWS)
def test_rows_that_depend_on_each_other_are_refused_by_name(kind):
    change, name = ACROSS_ROWS[kind]
    layer = change(nn.Linear(5, 7))
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    noise = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=f"`weight` is made by .*{name}.*, where a row depends"):
        row_parameters(layer)
    assert torch.equal(noise, torch.random.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())


def test_a_layer_without_bias_has_none():
    assert row_parameters(nn.Linear(2, 3, bias=False), "bias") == []
    layer = parametrizations.weight_norm(nn.Linear(2, 3))
    assert row_parameters(layer, "bias") == [layer.bias]
