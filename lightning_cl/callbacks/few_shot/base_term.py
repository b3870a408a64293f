"""The base of terms that help to learn features in the base session and are silent afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.few_shot.base_session import BaseSessionMethod
from lightning_cl.training import MethodModule, Step
from lightning_cl.training.batch import Inputs
from lightning_cl.training.loss_terms import zero_through


class BaseTerm(MethodModule):
    """A weighted term of the loss in the first task.

    Args:
        strength: At least 0; with 0 no pass is made.
    """

    name: ClassVar[str]

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def term(self, step: Step) -> Tensor:
        """The scalar, after the user's step."""
        raise NotImplementedError

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """The term in the first task; afterwards a zero for own parameters, for whose gradient DDP waits."""
        if step.task.index == 0 and self.strength:
            return {self.name: self.strength * self.term(step)}
        own = list(self.parameters())
        return {self.name: zero_through(own, step.module.device)} if own else {}


def with_images(inputs: Any, change: Callable[[Tensor], Tensor], who: str) -> Any:
    """The inputs with their square images changed; what else they have stays.

    Args:
        inputs: ``(B, C, S, S)``, or several inputs with such images among them.
        change: Of the images.
        who: The method, for the error.

    Raises:
        ValueError: If there are no square images.
    """
    parts: dict[Any, Any] = inputs.parts if isinstance(inputs, Inputs) else {0: inputs}
    for place, part in parts.items():
        if isinstance(part, Tensor) and part.ndim == 4 and part.shape[2] == part.shape[3]:
            changed = change(part)
            return Inputs({**parts, place: changed}) if isinstance(inputs, Inputs) else changed
    given = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts.values()]
    raise ValueError(
        f"{who} turns images `(B, C, S, S)` of equal height and width, but the batch has {given}; leave it out."
    )


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Square images, each turned by its own number of quarter turns.

    Args:
        images: ``(B, C, S, S)``.
        turns: ``(B,)`` from 0 to 3.
    """
    every = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])  # (4, B, C, S, S)
    return every[turns, torch.arange(len(images), device=images.device)]


@dataclass(eq=False)
class BaseTermMethod(BaseSessionMethod):
    """Base of callbacks with a term in the base session.

    Args:
        strength: Weight of the term, at least 0; with 0 the run is the same as without the callback.

    Raises:
        ValueError: If ``strength`` is negative; in ``setup``, on a stream without a base session.
    """

    adds_loss: ClassVar[bool] = True

    strength: float = at_least(0, default=1.0)
