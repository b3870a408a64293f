"""Updates that differ from sample to sample, against one sample after the other."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.adapters import Mixture, PooledLoRA


def made() -> tuple[Mixture, PooledLoRA]:
    torch.manual_seed(0)
    mixture = Mixture()
    bank = PooledLoRA(mixture, 5, 6, 4, 3, scale=0.5)
    torch.nn.init.normal_(bank.up)
    return mixture, bank


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 2, 7)])
def test_every_sample_has_its_own_mixture(shape: tuple[int, ...]) -> None:
    mixture, bank = made()
    x, y = torch.randn(*shape, 6), torch.randn(*shape, 4)
    slots, shares = torch.tensor([[0, 1], [4, 4], [2, 0]]), torch.rand(3, 2)
    mixture.set(slots, shares)
    expected = []
    for row, base, ids, weights in zip(x, y, slots, shares, strict=True):
        delta = sum(w * bank.up[i].T @ bank.down[i] for i, w in zip(ids.tolist(), weights, strict=True))
        expected.append(base + 0.5 * row @ delta.T)
    assert_close(bank.adapted(x, y, [(0,)]), torch.stack(expected))


def test_without_a_choice_the_output_is_the_layers() -> None:
    _, bank = made()
    y = torch.randn(3, 4)
    assert bank.adapted(torch.randn(3, 6), y, [(0,)]) is y


def test_rows_that_are_no_samples_are_refused() -> None:
    mixture, bank = made()
    mixture.set(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1))
    with pytest.raises(ValueError, match="was given 8 rows for 2 samples"):
        bank.adapted(torch.randn(8, 6), torch.randn(8, 4), [(0,)])
