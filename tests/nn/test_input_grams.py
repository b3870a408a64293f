"""Sums of the products of layers' inputs, against the inputs themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import input_grams
from lightning_cl.nn.input_grams import has_input_rows, input_width
from lightning_cl.nn.replay import ReplayBuffer


def test_all_calls_count_and_only_within_the_block():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 5))
    layers = {name: net.get_submodule(name) for name in ("0", "2")} | {"idle": nn.Linear(4, 4)}
    images = torch.randn(6, 2, 4, 4)
    with torch.no_grad(), input_grams(layers) as grams:
        net(images[:4])
        net(images[4:])
    net(images)
    patches = F.unfold(images, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    hidden = net[:2](images).detach().double()
    assert_close(grams["0"], patches.T @ patches)
    assert_close(grams["2"], hidden.T @ hidden)
    assert not grams["idle"].any()


@pytest.mark.parametrize(
    ("layer", "width"),
    [
        (nn.Linear(7, 2), 7),
        (nn.Conv2d(2, 3, 3), 18),
        (nn.Conv2d(2, 2, 3, groups=2), None),
        (nn.Conv2d(2, 2, 3, padding="same"), None),
        (nn.Conv1d(2, 2, 3), None),
        (nn.LayerNorm(4), None),
    ],
)
def test_which_layers_have_such_inputs(layer, width):
    assert has_input_rows(layer) == (width is not None)
    assert width is None or input_width(layer) == width


def test_a_memory_draws_among_chosen_slots():
    buffer = ReplayBuffer(8)
    buffer.add(torch.arange(6.0), torch.arange(6))
    among = torch.tensor([True, False, True, False, True, False, True, True])  # the last two are empty
    assert sorted(buffer.draw(8, among=among).tolist()) == [0, 2, 4]
    assert len(buffer.draw(2, among=among)) == 2
