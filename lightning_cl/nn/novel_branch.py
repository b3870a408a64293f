"""Teach the novel branch of a dual projector the maps of a session, beside those of earlier classes (Mamba-FSCIL)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lightning_cl.nn.dual_projector import DualProjector, balanced_weights, dot_regression, separation, suppression
from lightning_cl.nn.weights import overwrite


def learn_session(
    projector: DualProjector, known: tuple[Tensor, Tensor], rows: Tensor, base: Tensor, options: Any, seed: int
) -> None:
    """Steps of AdamW on random batches, in place; with the same seed the same on every process.

    Args:
        projector: Whose novel branch learns.
        known: ``(N, C * S^2 + C)`` maps with the features behind them, and their ``(N,)`` labels.
        rows: ``(K, W)`` fixed rows of the classes.
        base: ``(K,)`` bool: base classes.
        options: With ``steps``, ``lr``, ``batch_size``, ``mixup``, and those of :func:`session_loss`.
        seed: Of batches and mixtures.
    """
    (samples, labels), generator = known, torch.Generator().manual_seed(seed)
    branch = {n: b for n, b in projector.novel.named_buffers() if b.is_floating_point()}
    weights = {name: value.clone().requires_grad_() for name, value in branch.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=options.lr, weight_decay=5e-4)
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.lr * (1 + math.cos(math.pi * step / options.steps)) / 2
        first = torch.randint(len(labels), (options.batch_size,), generator=generator).to(labels.device)
        mixed = bool(torch.rand((), generator=generator) < options.mixup)
        second = first[torch.randperm(len(first), generator=generator).to(first.device)] if mixed else first
        with torch.enable_grad():
            mixture, pair = (samples[first] + samples[second]) / 2, (labels[first], labels[second])
            loss = session_loss(projector, weights, mixture, pair, rows, base, options)
        found = torch.autograd.grad(loss, list(weights.values()))
        for weight, gradient in zip(weights.values(), found, strict=True):
            weight.grad = gradient
        optimizer.step()
    overwrite(branch, weights.items())


def session_loss(
    projector: DualProjector,
    weights: dict[str, Tensor],
    mixed: Tensor,
    labels: tuple[Tensor, Tensor],
    rows: Tensor,
    base: Tensor,
    options: Any,
) -> Tensor:
    """Dot regression of samples mixed half and half, and what the gate and the coefficients should be.

    Args:
        projector: With a novel branch.
        weights: Of the branch, by name.
        mixed: ``(B, C * S^2 + C)`` maps with the features behind them.
        labels: ``(B,)`` of what was mixed, first and second.
        rows: ``(K, W)`` fixed rows of the classes.
        base: ``(K,)`` bool: base classes.
        options: With ``side``, ``strength``, ``suppress_base``, ``excite_novel`` and ``separate``.
    """
    side = options.side
    maps, features = mixed.tensor_split([mixed.shape[1] // (side**2 + 1) * side**2], dim=1)
    maps = maps.unflatten(1, (-1, side, side))
    with torch.no_grad():
        fixed = projector(maps, features, novel=False).features
    added, chosen = functional_call(projector.novel, weights, (maps,))
    pairs = [(rows[y], balanced_weights(y).to(mixed.dtype)) for y in labels]
    terms = [dot_regression(fixed + added, own, balance) for own, balance in pairs]
    of_base = base[labels[0]] & base[labels[1]]
    loss: Tensor = options.strength * (terms[0] + terms[1]) / 2
    loss = loss + suppression(chosen.gate, of_base, options.suppress_base, options.excite_novel)
    loss = loss + options.separate * separation(chosen, of_base)
    return loss
