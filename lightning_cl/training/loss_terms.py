"""Sums of what a training step returns and what methods add to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def plus(output: Any, term: Tensor) -> Any:
    """What ``training_step`` returned (a loss, or a dictionary with one) with ``term`` added to the loss."""
    if isinstance(output, Mapping):
        return {**output, "loss": output["loss"] + term}
    return output + term


def times(output: Any, factor: float) -> Any:
    """What ``training_step`` returned with its loss multiplied."""
    if output is None:
        return output
    return {**output, "loss": output["loss"] * factor} if isinstance(output, Mapping) else output * factor


def zero_through(parameters: Iterable[Tensor], device: torch.device) -> Tensor:
    """Make a zero whose gradient reaches every parameter: DDP waits for all of them, and nothing moves."""
    return sum((p.sum() * 0.0 for p in parameters), torch.zeros((), device=device))


def check_term(name: str, value: Any, device: torch.device) -> None:
    """Refuse a term that cannot be added to the loss; looks at no value, so nothing waits for the device.

    Raises:
        ValueError: If it is no scalar tensor, lies on another device, or carries no gradient.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the loss term `{name}` is a {shape}; give a scalar tensor.")
    if value.device != device:
        raise ValueError(f"the loss term `{name}` lies on {value.device}, but the module on {device}; move it there.")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(
            f"the loss term `{name}` carries no gradient, so it would train nothing; compute it without `detach` and "
            "outside of `torch.no_grad`, or leave it out."
        )
