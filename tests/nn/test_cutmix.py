"""CutMix: which pixels come from where."""

from __future__ import annotations

import torch

from lightning_cl.nn.cutmix import cutmix, draw_cutmix


def test_a_rectangle_in_the_middle() -> None:
    """A quarter of the area of 8 x 8 pixels, around the middle: rows and columns 2 to 5."""
    mixed, kept = cutmix(torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8), 0.75, (0.5, 0.5))
    expected = torch.zeros(8, 8)
    expected[2:6, 2:6] = 1
    assert torch.equal(mixed, expected.expand(2, 3, 8, 8))
    assert kept == 0.75


def test_at_the_border_the_label_counts_by_what_was_replaced() -> None:
    mixed, kept = cutmix(torch.zeros(1, 1, 8, 6), torch.ones(1, 1, 8, 6), 0.0, (0.0, 0.9))
    expected = torch.zeros(8, 6)
    expected[:4, 2:] = 1  # 8 x 6 around row 0 and column 5
    assert torch.equal(mixed[0, 0], expected)
    assert kept == 1 - 16 / 48
    same, all_kept = cutmix(torch.zeros(1, 1, 8, 6), torch.ones(1, 1, 8, 6), 1.0, (0.3, 0.3))
    assert not same.any()
    assert all_kept == 1


def test_draws_are_of_the_generator_alone() -> None:
    draws = [draw_cutmix(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert all(0 <= kept <= 1 and all(0 <= c < 1 for c in centre) for kept, centre in draws)
