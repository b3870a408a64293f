"""Measures of what a network can still learn: active and dormant units, the rank of its features, a fresh task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def by_unit(outputs: Tensor) -> Tensor:
    """``(N, U)`` the outputs of a layer's units: ``(B, U)``, ``(B, L, U)`` of tokens, or ``(B, U, H, W)`` of maps."""
    last = outputs.movedim(1, -1) if outputs.ndim == 4 else outputs
    return last.reshape(-1, last.shape[-1])


def active_share(outputs: Tensor) -> float:
    """The share of units and samples with an output above 0, in [0, 1] (FAU of arXiv:2310.07418).

    Args:
        outputs: Of a layer of units that answer 0 or less where they are not active, of any shape.
    """
    return float((outputs > 0).double().mean())


def dormant_units(activity: Tensor, threshold: float) -> Tensor:
    """``(U,)`` bool: units that hardly answer (arXiv:2302.12902): ``a_u / mean(a) <= threshold``.

    Where no unit of the layer answers at all, all of them are dormant.

    Args:
        activity: ``(U,)`` mean of ``|output|`` over samples.
        threshold: At least 0; with 0 only units that never answer.
    """
    return activity <= threshold * activity.mean()


def effective_rank(features: Tensor) -> float:
    """``exp`` of the entropy of the singular values, scaled to sum 1; in [1, min(N, D)], and 0 for zeros.

    As in Roy & Vetterli (EUSIPCO 2007); features are not centred.

    Args:
        features: ``(N, D)``.
    """
    values = torch.linalg.svdvals(features.double())
    if not float(values.sum()):
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())


@torch.enable_grad()
def fresh_task_loss(
    features: Callable[[Mapping[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    targets: Tensor,
    num_classes: int,
    steps: int,
    lr: float,
) -> float:
    """The loss on a task of random labels after a few steps of Adam, from a copy of the weights and a head of zeros.

    Before the first step it is ``ln(num_classes)``; the lower, the faster the network learns something new.

    Args:
        features: ``(N, D)`` from weights by name.
        weights: Not changed.
        targets: ``(N,)`` int64 labels.
        num_classes: Of the fresh task.
        steps: At least 1.
        lr: Of Adam.
    """
    copies = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    given = features(copies)
    head = [
        torch.zeros(size, device=given.device).requires_grad_() for size in ((num_classes, given.shape[1]), num_classes)
    ]
    trained = [*head, *copies.values()]
    optimizer = torch.optim.Adam(trained, lr)
    for step in range(steps):
        found = given if step == 0 else features(copies)
        loss = F.cross_entropy(F.linear(found.float(), *head), targets)
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        for part, gradient in zip(trained, gradients, strict=True):
            part.grad = gradient
        optimizer.step()
    with torch.no_grad():
        return float(F.cross_entropy(F.linear(features(copies).float(), *head), targets))


@torch.no_grad()
def shrink_and_perturb_(weights: Mapping[str, Tensor], shrink: float, noise: float, generator: torch.Generator) -> None:
    """``w <- shrink * w + noise * n`` in place, ``n`` standard normal; 1 and 0 leave all as it is.

    Args:
        weights: By name.
        shrink: In [0, 1].
        noise: Standard deviation, at least 0.
        generator: On the CPU, the same on all processes.
    """
    for weight in weights.values():
        if shrink != 1:
            weight.mul_(shrink)
        if noise:
            weight.add_(torch.randn(weight.shape, generator=generator).to(weight), alpha=noise)
