"""A mask has one bit for each element, and the values of a mask the gradient of what it was made from."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import pack_bits, straight_through, unpack_bits
from lightning_cl.nn.bits import TaskBits


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (4, 2, 3, 3), ()])
def test_a_mask_comes_back(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.4
    packed = pack_bits(mask)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-mask.numel() // 8)
    assert torch.equal(unpack_bits(packed, mask.shape), mask)


def test_the_first_element_is_the_lowest_bit():
    assert pack_bits(torch.tensor([True, False, True] + [False] * 6 + [True])).tolist() == [5, 2]


def test_values_are_hard_and_gradients_soft():
    scores = torch.tensor([0.1, -3e8, 0.7], requires_grad=True)
    used = straight_through(scores > 0, scores)
    assert used.tolist() == [1, 0, 1]
    used.backward(torch.tensor([2.0, 3.0, -1.0]))
    assert_close(scores.grad, torch.tensor([2.0, 3.0, -1.0]))


def test_masks_of_tasks_are_kept_apart():
    first = {"a.weight": torch.tensor([[True, False, True]]), "b": torch.ones(9, dtype=torch.bool)}
    bits, later = TaskBits(first, 3), torch.tensor([[False, True, True]])
    bits.keep("a.weight", 1, later)
    assert [bits.mask("a.weight", task).tolist() for task in range(3)] == [
        [[True, False, True]],
        later.tolist(),
        [[True, False, True]],
    ]
    assert {name: tuple(rows.shape) for name, rows in bits.state_dict().items()} == {"a/weight": (3, 1), "b": (3, 2)}
    assert set(bits.growing) == set(bits.state_dict())
