"""Eight bits a number: what comes back, and how far off it is."""

from __future__ import annotations

import torch

from lightning_cl.nn.quantization import dequantize, quantize


def test_values_are_off_by_at_most_half_a_step_of_their_row() -> None:
    torch.manual_seed(0)
    values = torch.randn(5, 3, 4) * torch.tensor([1e-6, 1.0, 3.0, 50.0, 1e4])[:, None, None]
    packed = quantize(values)
    assert packed.codes.dtype == torch.uint8
    assert packed.codes.shape == values.shape
    spread = values.flatten(1).amax(1) - values.flatten(1).amin(1)
    off = (dequantize(packed) - values).abs().flatten(1).amax(1)
    assert bool((off <= spread / 510 * (1 + 1e-4)).all())
    assert bool((off > spread / 2000).all())  # and 8 bits are no more


def test_the_ends_of_a_row_and_equal_values_come_back_as_they_are() -> None:
    values = torch.tensor([[0.0, 255.0, 100.0], [7.5, 7.5, 7.5], [-2.0, 2.0, 2.0]])
    torch.testing.assert_close(dequantize(quantize(values)), values)
    assert quantize(values).codes[0].tolist() == [0, 255, 100]
