"""Importance of weights from per-sample gradients: the diagonal of the Fisher matrix, and sums like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_cl.nn.eager import uncompiled

Weights = Mapping[str, Tensor]
#: A scalar from weights, inputs and one more tensor with a row a sample.
Loss = Callable[[Weights, Any, Tensor], Tensor]
#: ``(B, C)`` logits from weights and inputs.
Logits = Callable[[Weights, Any], Tensor]
#: Whose gradients are squared; see :func:`fisher_diagonal`.
Fisher = Literal["true", "sampled", "empirical", "batch"]

#: How many numbers the gradients of the samples that are differentiated at once may have: 512 MiB in 32 bits.
_AT_ONCE = 2**27


def per_sample_sum(
    loss: Loss, weights: Weights, inputs: Any, targets: Tensor, of: Callable[[Tensor], Tensor] = torch.square
) -> dict[str, Tensor]:
    """``sum_b of(d loss(weights, inputs[b:b+1], targets[b:b+1]) / d weights)``, elementwise, for every weight.

    Samples are differentiated together where the module allows it (`torch.func.vmap`), else one after the other: a
    module in training mode with batch norm or dropout, or one whose Python code looks at values.

    Args:
        loss: Scalar of weights, inputs and targets; it is always given one sample.
        weights: The weights to differentiate by, by name; the rest belongs into ``loss``.
        inputs: A tensor, or any collection of tensors, with a row for each sample.
        targets: ``(B, ...)`` what the loss compares with.
        of: ``torch.square`` (Fisher) or ``torch.abs`` (MAS, arXiv:1711.09601).

    Returns:
        Sums by name, of the weights' shapes; 0 for a weight that the loss does not depend on.
    """
    weights = {name: weight.detach() for name, weight in weights.items()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    size = max(1, _AT_ONCE // max(1, sum(weight.numel() for weight in weights.values())))
    together = size > 1
    for start in range(0, len(targets), size):
        rows = slice(start, start + size)
        some, wanted = _rows(inputs, rows), targets[rows]
        found: dict[str, Tensor] | None = None
        if together:
            found = _vectorised(loss, weights, some, wanted, of)
            together = found is not None
        _add(total, _one_by_one(loss, weights, some, wanted, of) if found is None else found)
    return total


def fisher_diagonal(
    logits: Logits,
    weights: Weights,
    inputs: Any,
    targets: Tensor | None = None,
    kind: Fisher = "empirical",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information, summed over the samples of a batch; divide by the number of all samples.

    - ``"true"``: ``sum_c p(c | x) (d log p(c | x))^2``, the expectation over the model's own classes; a backward pass
      for each class that is possible (Kirkpatrick et al., arXiv:1612.00796).
    - ``"sampled"``: one label of each sample is drawn from ``p(c | x)``; the same on average.
    - ``"empirical"``: the sample's own label.
    - ``"batch"``: ``B (d mean_b loss_b)^2``, the square of the mean gradient that many code bases use; one backward
      pass, but gradients of opposite sign cancel.

    Args:
        logits: ``(B, C)`` logits from weights and inputs, without side effects; masked classes may be ``-inf``.
        weights: The weights to differentiate by, by name.
        inputs: A tensor, or any collection of tensors, with a row for each sample.
        targets: ``(B,)`` labels; not read by ``"true"`` and ``"sampled"``.
        kind: Whose gradients.
        generator: Of the draws of ``"sampled"``.

    Returns:
        Sums by name, not negative.

    Raises:
        ValueError: If ``kind`` is unknown, or needs ``targets`` and has none.
    """
    if kind not in ("true", "sampled", "empirical", "batch"):
        raise ValueError(f'`kind` is {kind!r}; give "true", "sampled", "empirical" or "batch".')
    if targets is None and kind in ("empirical", "batch"):
        raise ValueError(f'the {kind} Fisher needs the labels; give `targets`, or choose "true" or "sampled".')

    def loss(known: Weights, some: Any, wanted: Tensor) -> Tensor:
        return F.cross_entropy(logits(known, some), wanted)

    if kind == "true":
        return _expected(logits, weights, inputs)
    if kind == "sampled":
        with torch.no_grad():
            probabilities = logits(weights, inputs).float().softmax(dim=1)
        targets = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
    assert targets is not None
    if kind == "batch":
        gradients = _gradients(loss, {name: weight.detach() for name, weight in weights.items()}, inputs, targets)
        return {name: len(targets) * gradient.square() for name, gradient in gradients.items()}
    return per_sample_sum(loss, weights, inputs, targets)


def _expected(logits: Logits, weights: Weights, inputs: Any) -> dict[str, Tensor]:
    with torch.no_grad():
        probabilities = logits(weights, inputs).softmax(dim=1)

    def root(c: int, known: Weights, some: Any, p: Tensor) -> Tensor:  # squared, its gradient is p_c (d log p_c)^2
        return -(p.sqrt() * logits(known, some).log_softmax(dim=1)[:, c]).sum()

    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for c in (probabilities > 0).any(dim=0).nonzero().flatten().tolist():
        _add(total, per_sample_sum(partial(root, c), weights, inputs, probabilities[:, c]))
    return total


def _rows(inputs: Any, rows: slice) -> Any:
    return apply_to_collection(inputs, Tensor, lambda tensor: tensor[rows])


def _add(total: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, value in more.items():
        total[name] += value


def per_sample_gradients(
    loss: Loss, weights: Weights, inputs: Any, targets: Tensor, randomness: Literal["error", "different"] = "error"
) -> dict[str, Tensor]:
    """``(B, ...)`` gradients of single samples by the name of the weight, all at once.

    Args:
        loss: Scalar of weights, inputs and targets; it is always given one sample.
        weights: The weights to differentiate by, by name, without gradient.
        inputs: A tensor, or any collection of tensors, with a row for each sample.
        targets: ``(B, ...)``.
        randomness: Whether random numbers, as of dropout, are an error or drawn for each sample.

    Raises:
        RuntimeError: If the loss cannot be differentiated for several samples at once.
    """

    def one(known: Weights, row: Any, wanted: Tensor) -> Tensor:
        return loss(known, apply_to_collection(row, Tensor, lambda tensor: tensor[None]), wanted[None])

    with uncompiled():
        found: dict[str, Tensor] = torch.func.vmap(torch.func.grad(one), (None, 0, 0), randomness=randomness)(
            weights, inputs, targets
        )
    return found


def _vectorised(
    loss: Loss, weights: Weights, inputs: Any, targets: Tensor, of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor] | None:
    """``None`` where the loss cannot be differentiated for several samples at once."""
    try:
        gradients = per_sample_gradients(loss, weights, inputs, targets)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, NotImplementedError, AssertionError):  # the loss's own is raised again below
        return None
    return {name: of(gradient).sum(dim=0) for name, gradient in gradients.items()}


def _one_by_one(
    loss: Loss, weights: Weights, inputs: Any, targets: Tensor, of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row in range(len(targets)):
        rows = slice(row, row + 1)
        gradients = _gradients(loss, weights, _rows(inputs, rows), targets[rows])
        _add(total, {name: of(gradient) for name, gradient in gradients.items()})
    return total


def _gradients(loss: Loss, weights: Weights, inputs: Any, targets: Tensor) -> dict[str, Tensor]:
    with torch.enable_grad():
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        value = loss(leaves, inputs, targets)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
