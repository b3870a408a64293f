"""Which classes a head may answer with, and which elements of weights belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.guard import Guard, zero_gradients
from lightning_cl.nn.weights import NamedTensors

#: How far below the smallest allowed logit a masked one lies: exp of less than -745 is 0 in 64 bits, too.
MASKED_BELOW = 1000.0


class ClassMask(nn.Module):
    """Puts logits of classes that are not allowed far below the others; everything is allowed until told otherwise.

    Cross-entropy on masked logits equals, in value and gradient, cross-entropy on the slice of allowed columns: a
    masked logit lies :data:`MASKED_BELOW` under the sample's smallest allowed one (and under 0), where its probability
    is exactly 0. It is finite and a constant, so other losses (binary cross-entropy, focal, mean squared error,
    penalties on logits) stay finite, too, and train the allowed columns only. Losses that only compare logits and ask
    for some probability of every class (label smoothing, divergences) have the gradient that they have on the slice,
    too, if they ask for as much of each masked one: see :func:`gradient_within`.

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
        """``(..., C_head)`` logits; those of classes that are not allowed, or -inf already, far below the others."""
        allowed = self.train_allowed if self.training else self.eval_allowed
        if not len(allowed):
            return logits
        allowed = allowed & (logits > -torch.inf)
        if not self.training:
            return fill_masked(logits, allowed)
        filled: Tensor = _Filled.apply(logits, allowed, _far_below(logits, allowed))
        return filled


def fill_masked(logits: Tensor, allowed: Tensor) -> Tensor:
    """``(..., C)`` logits with a finite number far below the others where ``allowed`` (bool, ``(..., C)``) is false."""
    return torch.where(allowed, logits, _far_below(logits, allowed))


def _far_below(logits: Tensor, allowed: Tensor) -> Tensor:
    lowest = logits.detach().masked_fill(~allowed, torch.inf).amin(dim=-1, keepdim=True)
    return lowest.clamp(max=0) - MASKED_BELOW


class _Filled(torch.autograd.Function):
    """``(..., C)`` logits with ``(..., 1)`` numbers where they are not allowed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, allowed: Tensor, fill: Tensor) -> Tensor:
        return torch.where(allowed, logits, fill)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient_within(gradient, *ctx.saved_tensors), None, None


def gradient_within(gradient: Tensor, allowed: Tensor) -> Tensor:
    """Gradient by the allowed logits, where the others are constants.

    A loss that only compares logits (its gradient sums to 0 in a row, as that of cross-entropy) and asks for some
    probability of masked classes would push all allowed logits down without end, since the masked ones do not rise. For
    such a row the masked ones follow the mean of the allowed ones: their gradient is shared out in equal parts. Label
    smoothing over ``C`` columns has then exactly the gradient of label smoothing over the allowed ones.

    Args:
        gradient: ``(..., C)`` by masked logits.
        allowed: ``(..., C)`` bool.
    """
    own, others = gradient.masked_fill(~allowed, 0), gradient.masked_fill(allowed, 0).sum(-1, keepdim=True)
    rounding = 16 * torch.finfo(gradient.dtype).eps * gradient.abs().sum(-1, keepdim=True)
    compares = gradient.sum(-1, keepdim=True).abs() <= rounding
    part = torch.where(compares, others, 0) / allowed.sum(-1, keepdim=True).clamp(min=1)
    return own + part.masked_fill(~allowed, 0)


def with_infinite(logits: Tensor, allowed: Tensor) -> Tensor:
    """``(..., C)`` logits with -inf for the classes that are not ``allowed`` and were put far below the others.

    So are allowed ones that stand as low: they were -inf before, as a class is of which a method has no sample yet.
    """
    fill = logits.masked_fill(allowed, torch.inf).amin(dim=-1, keepdim=True)
    filled = ~allowed | (logits <= fill)
    lowest = logits.masked_fill(filled, torch.inf).amin(dim=-1, keepdim=True).clamp(max=0)
    return logits.masked_fill(filled & (logits <= lowest - MASKED_BELOW / 2), -torch.inf)


def _allow(allowed: Tensor, classes: Sequence[int] | None) -> None:
    mask = torch.full(allowed.shape, classes is None)  # on the CPU: one copy, however many classes
    if classes is not None and len(mask):  # without a head there is nothing to mask
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

    def zero_gradients(self, weights: Mapping[str, Tensor]) -> None:
        """Set the gradient of every true element to 0."""
        zero_gradients((weights[name], mask) for name, mask in self.items())

    def guards(self, weights: Mapping[str, Tensor]) -> Iterator[Guard]:
        """Guards that keep every true element where it is now."""
        return (Guard(weights[name], mask) for name, mask in self.items())


def smallest_elements(weight: Tensor, share: float, among: Tensor | None = None) -> Tensor:
    """Mask of the ``int(share * n)`` smallest by magnitude of the ``n`` elements that are true in ``among``.

    Exactly as many, also among equals: those of the lowest index (PackNet, arXiv:1711.05769; DST's death).

    Args:
        weight: Any shape.
        share: In [0, 1].
        among: Boolean, of the weight's shape, which waits for the device; all elements when ``None``.
    """
    size = weight.detach().abs().float()
    count = size.numel() if among is None else int(among.sum())
    size = (size if among is None else size.masked_fill(~among, torch.inf)).flatten()
    chosen = torch.zeros_like(size, dtype=torch.bool)
    chosen[size.sort(stable=True).indices[: int(share * count)]] = True
    return chosen.view_as(weight)


def random_elements(shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Mask of exactly ``int(share * n)`` of ``n`` elements, drawn with a generator on the CPU."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool).flatten()
    mask[torch.randperm(len(mask), generator=generator)[: int(share * len(mask))]] = True
    return mask.view(tuple(shape))


def largest_elements(matrix: Tensor, share: float) -> Tensor:
    """Mask of the ``int(share * n)`` largest of the ``n`` elements of a matrix by magnitude."""
    chosen = torch.zeros(matrix.numel(), dtype=torch.bool, device=matrix.device)
    chosen[matrix.abs().flatten().topk(int(share * matrix.numel())).indices] = True
    return chosen.view(matrix.shape)


def mean_at(matrix: Tensor, times: Tensor) -> Tensor:
    """The mean magnitude of a matrix over elements of which each counts ``times``, an integer matrix; 0 if none do."""
    return (matrix.abs() * times).sum() / times.sum().clamp_min(1)
