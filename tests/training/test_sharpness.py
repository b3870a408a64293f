"""Uphill gradients against the formula; in half precision of a scaled loss, so that small ones are not lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.testing import assert_close

from lightning_cl.training.sharpness import uphill_difference


def a_step(scaler: Any = None) -> Any:
    """Of a layer of two weights, 3 and 4."""
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, 4.0]]))
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=scaler),
        datamodule=SimpleNamespace(train_weight=lambda batch_idx: 1.0),
        fit_loop=SimpleNamespace(batch_idx=0),
        world_size=1,
    )
    module.trainer = trainer  # type: ignore[assignment]
    return SimpleNamespace(module=module)


def half_square(weights: Any) -> Tensor:
    return weights["weight"].square().sum() / 2


def small(weights: Any) -> Tensor:
    """``1e-8 / 2 * |w|^2``, half of it in half precision, which has no number between 0 and 6e-8."""
    return ((weights["weight"].half() * 1e-4).float() * weights["weight"].detach() * 1e-4).sum()


def test_uphill_of_a_square() -> None:
    """Its gradient is the weight, whose length is 5."""
    found = uphill_difference(a_step(), half_square, radius=0.5)
    assert_close(found["weight"], torch.tensor([[0.3, 0.4]]))


def test_a_scaled_loss_gives_the_same() -> None:
    found = uphill_difference(a_step(GradScaler("cpu")), half_square, radius=0.5)
    assert_close(found["weight"], torch.tensor([[0.3, 0.4]]))


def test_small_gradients_are_lost_without_the_scale_alone() -> None:
    plain, scaled = (uphill_difference(a_step(scaler), small, 0.5) for scaler in (None, GradScaler("cpu")))
    assert not plain["weight"].any()
    assert_close(scaled["weight"], 1e-8 * torch.tensor([[0.3, 0.4]]), rtol=0.1, atol=0)


def test_where_a_gradient_overflows_nothing_is_added() -> None:
    def large(weights: Any) -> Tensor:
        return (weights["weight"].half() * 30.0).float().sum()

    found = uphill_difference(a_step(GradScaler("cpu")), large, 0.5)
    assert not found["weight"].any()
    assert found["weight"].isfinite().all()
