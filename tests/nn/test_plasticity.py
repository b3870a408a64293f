"""Measures of plasticity against values by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.nn.plasticity import (
    active_share,
    by_unit,
    dormant_units,
    effective_rank,
    fresh_task_loss,
    shrink_and_perturb_,
)
from lightning_cl.nn.unit_outputs import unit_layers, unit_outputs


def test_active_units_of_the_specification() -> None:
    assert active_share(torch.tensor([[1.0, -1.0], [2.0, 3.0]]).relu()) == 0.75


def test_units_of_maps_and_tokens_are_their_channels() -> None:
    maps = torch.randn(2, 3, 4, 5)
    assert_close(by_unit(maps)[:, 1], maps[:, 1].flatten())
    tokens = torch.randn(2, 7, 3)
    assert_close(by_unit(tokens)[:, 2], tokens[..., 2].flatten())


def test_dormant_units_are_judged_by_the_mean_of_their_layer() -> None:
    activity = torch.tensor([0.0, 0.02, 1.0, 0.98])  # mean 0.5
    assert dormant_units(activity, 0.025).tolist() == [True, False, False, False]
    assert dormant_units(activity, 0.05).tolist() == [True, True, False, False]
    assert dormant_units(torch.zeros(3), 0.1).all()


@pytest.mark.parametrize(
    ("values", "rank"),
    [([1.0, 1.0, 1.0, 1.0], 4.0), ([3.0, 0.0, 0.0, 0.0], 1.0), ([0.75, 0.25, 0.0, 0.0], math.exp(0.562335))],
)
def test_effective_rank_of_known_spectra(values: list[float], rank: float) -> None:
    turned = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64))[0] * torch.tensor(values)
    assert effective_rank(turned) == pytest.approx(rank, abs=1e-5)
    assert effective_rank(torch.zeros(3, 4)) == 0


def test_the_fresh_task_is_that_of_a_plain_loop_and_leaves_the_weights() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(12, 5), torch.randint(3, (12,))
    net, head = nn.Linear(5, 4), nn.Linear(4, 3)
    before = {name: p.clone() for name, p in net.named_parameters()}

    def features(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(net, weights, (x,)).relu()

    found = fresh_task_loss(features, dict(net.named_parameters()), y, 3, steps=4, lr=0.05)
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam([*head.parameters(), *net.parameters()], 0.05)
    first = F.cross_entropy(head(net(x).relu()), y)
    assert_close(first, torch.tensor(math.log(3)))
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(head(net(x).relu()), y).backward()
        optimizer.step()
    assert found == pytest.approx(float(F.cross_entropy(head(net(x).relu()), y)), rel=1e-5)
    assert found < float(first)


def test_units_are_found_with_and_without_modules_for_activations() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2), nn.GELU(), nn.Linear(2, 5))
    assert list(unit_layers(net, net[4])) == ["1", "3"]
    bare = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    assert list(unit_layers(bare, bare[1])) == ["0"]
    x = torch.randn(6, 3)
    with unit_outputs(unit_layers(bare, bare[1])) as outputs:
        bare(x)
    assert_close(outputs["0"][0], bare[0](x).relu())


def test_the_weights_shrink_and_get_noise_of_a_known_size() -> None:
    weight, scalar = torch.full((200, 300), 2.0), torch.tensor(4.0)
    generator = torch.Generator().manual_seed(0)
    shrink_and_perturb_({"w": weight, "s": scalar}, 0.25, 0.1, generator)
    assert float(weight.mean()) == pytest.approx(0.5, abs=2e-3)
    assert float(weight.std()) == pytest.approx(0.1, rel=1e-2)
    assert scalar.shape == ()
    assert float(scalar) != 1.0
    again = torch.full((200, 300), 2.0)
    shrink_and_perturb_({"w": again}, 0.25, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(again, weight)
