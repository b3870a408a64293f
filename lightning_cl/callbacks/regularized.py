"""The base of methods that add a weighted term to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.taskwise import TaskwiseMethod


@dataclass(eq=False)
class RegularizedMethod(TaskwiseMethod):
    """A method that adds a term to the loss or its gradient, and is plain fine-tuning where the term weighs nothing.

    Args:
        strength: Weight of the term, at least 0.

    Raises:
        ValueError: If ``strength`` is negative.
    """

    constrains: ClassVar[bool] = True

    strength: float = at_least(0, default=1.0)
