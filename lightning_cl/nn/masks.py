"""Which classes a head may answer with, and which elements of weights belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.guard import Guard
from lightning_cl.nn.weights import NamedTensors


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
    if classes is not None:
        mask[torch.as_tensor(list(classes), dtype=torch.long)] = True
    allowed.copy_(mask, non_blocking=True)


class ElementMask(NamedTensors):
    """A boolean mask for each of some weights, saved with the module; all false until set.

    PackNet, DST and HFT keep one of what is frozen, WSN and SupSup one for each task. Set it in place through
    :meth:`items`, for example ``mask |= used``.

    Args:
        weights: The weights to mask, by name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__({name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()})

    @torch.no_grad()
    def zero_gradients(self, weights: Mapping[str, Tensor]) -> None:
        """Set the gradient of every true element to 0."""
        for name, mask in self.items():
            gradient = weights[name].grad
            if gradient is not None:
                gradient.masked_fill_(mask, 0)

    @torch.no_grad()
    def zero_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set every true element to 0, in place."""
        for name, mask in self.items():
            weights[name].masked_fill_(mask, 0)

    def guards(self, weights: Mapping[str, Tensor]) -> Iterator[Guard]:
        """Guards that keep every true element where it is now."""
        return (Guard(weights[name], mask) for name, mask in self.items())


def smallest_elements(weight: Tensor, share: float, among: Tensor) -> Tensor:
    """Mask of the ``int(share * n)`` smallest by magnitude of the ``n`` elements that are true in ``among``.

    Exactly as many, also among equals: those of the lowest index (PackNet, arXiv:1711.05769; DST's death).

    Args:
        weight: Any shape.
        share: In [0, 1].
        among: Boolean, of the weight's shape.
    """
    size = weight.detach().abs().float().masked_fill(~among, torch.inf).flatten()
    chosen = torch.zeros_like(among).flatten()
    chosen[size.sort(stable=True).indices[: int(share * int(among.sum()))]] = True
    return chosen.view_as(among)


def random_elements(shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Mask of exactly ``int(share * n)`` of ``n`` elements, drawn with a generator on the CPU."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool).flatten()
    mask[torch.randperm(len(mask), generator=generator)[: int(share * len(mask))]] = True
    return mask.view(tuple(shape))
