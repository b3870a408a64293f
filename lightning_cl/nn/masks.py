"""Which classes a head may answer with, while training and while evaluating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class ClassMask(nn.Module):
    """Sets logits of classes that are not allowed to -inf; everything is allowed until told otherwise.

    Cross-entropy on masked logits equals, in value and gradient, cross-entropy on the slice of allowed columns.

    Args:
        num_outputs: Number of columns of the head, ``C_head``.
    """

    #: Own tensors with a row for each class or task, which get more rows when the stream is extended.
    growing: tuple[str, ...] = ("train_allowed", "eval_allowed")
    train_allowed: Tensor
    eval_allowed: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("train_allowed", torch.ones(num_outputs, dtype=torch.bool))
        self.register_buffer("eval_allowed", torch.ones(num_outputs, dtype=torch.bool))

    def allow(self, train: Sequence[int] | None, evaluate: Sequence[int] | None) -> None:
        """Allow exactly these columns, in place; ``None`` allows all."""
        self.allow_train(train)
        _allow(self.eval_allowed, evaluate)

    def allow_train(self, classes: Sequence[int] | None) -> None:
        """Allow exactly these columns while training, in place; ``None`` allows all."""
        _allow(self.train_allowed, classes)

    def forward(self, logits: Tensor) -> Tensor:
        """``(..., C_head)`` logits with -inf where a class is not allowed."""
        allowed = self.train_allowed if self.training else self.eval_allowed
        return logits.masked_fill(~allowed, -torch.inf)

    def hook(self, head: nn.Module, args: Any, logits: Tensor) -> Tensor:
        """Forward hook for a head; a bound method, so that it is copied along with the module."""
        masked: Tensor = self(logits)
        return masked


def _allow(allowed: Tensor, classes: Sequence[int] | None) -> None:
    mask = torch.full(allowed.shape, classes is None)  # on the CPU: one copy, however many classes
    if classes is not None and len(mask):  # without a head there is nothing to mask
        mask[torch.as_tensor(list(classes), dtype=torch.long)] = True
    allowed.copy_(mask, non_blocking=True)
