"""The soft Hebbian rule: its known values, its fixed points, and patches as a convolution reads them."""

from __future__ import annotations

import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn.hebbian import patches, soft_hebbian, turn_rows_, unit_rows


def test_two_units_and_one_input():
    """``W = I``, ``x = (0.6, 0.8)``, temperature 1: ``y = (0.450166, 0.549834)``."""
    found = soft_hebbian(torch.eye(2), torch.tensor([[0.6, 0.8]]))
    assert_close(found, torch.tensor([[0, 0.360133], [0.329900, 0]]), atol=1e-6, rtol=0)


def test_it_is_the_sum_over_inputs_and_units():
    rows, inputs = torch.randn(3, 4).double(), torch.randn(7, 4).double()
    expected = torch.zeros(3, 4).double()
    for x in inputs:
        u = rows @ x
        y = (u / 0.5).softmax(0)
        for k in range(3):
            expected[k] += y[k] * (x - u[k] * rows[k])
    assert_close(soft_hebbian(rows, inputs, 0.5), expected)


def test_a_unit_that_is_the_input_stays():
    x = nn.functional.normalize(torch.randn(1, 5), dim=1)
    assert_close(soft_hebbian(x, x), torch.zeros(1, 5), atol=1e-6, rtol=0)


def test_rows_turn_and_keep_their_lengths():
    weight = torch.randn(3, 2, 2, 2)
    before = weight.clone()
    change = 0.1 * torch.randn(3, 8)
    rows, lengths = unit_rows(before)
    turn_rows_(weight, change)
    assert_close(weight.flatten(1).norm(dim=1), before.flatten(1).norm(dim=1))
    assert_close(weight.flatten(1), lengths * nn.functional.normalize(rows + change, dim=1))
    assert not torch.equal(weight, before)


def test_patches_are_what_a_convolution_reads():
    layer, images = nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2, bias=False), torch.randn(4, 2, 9, 8)
    expected = layer(images)
    found = patches(layer, images) @ layer.weight.flatten(1).T
    assert_close(found, expected.flatten(2).transpose(1, 2).flatten(0, 1))
