"""The base of methods that add a weighted term to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_cl.callbacks.arguments import check_at_least
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

    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "strength")
