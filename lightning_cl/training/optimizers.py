"""Optimisers in what ``configure_optimizers`` returns, and parameters that they do not know yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer


def optimizers_in(configured: Any) -> Iterator[Optimizer]:
    """All optimisers in anything that Lightning takes from ``configure_optimizers``."""
    if isinstance(configured, Optimizer):
        yield configured
    elif isinstance(configured, dict):
        yield from optimizers_in(configured.get("optimizer"))
    elif isinstance(configured, (list, tuple)):
        for entry in configured:
            yield from optimizers_in(entry)


def hand_over(optimizers: Sequence[Optimizer], added: Iterable[Parameter]) -> None:
    """Give what methods added to the first optimiser, if the user made them before there was anything to add."""
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    if optimizers:
        # Into its first group, not a new one: a scheduler that exists already has one learning rate per group.
        optimizers[0].param_groups[0]["params"].extend(p for p in added if id(p) not in held)
