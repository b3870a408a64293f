"""Virtual outliers of OVOR (arXiv:2402.04129): synthesis by nearest neighbours, and the energy regulariser."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

OutlierMode = Literal["boundary", "origin"]
_BLOCK = 4096


def kth_neighbour_distance(points: Tensor, index: Tensor, k: int) -> Tensor:
    """Squared Euclidean distance of ``(M, D)`` points to their ``k``-th nearest row of ``(N, D)``, in blocks: ``(M,)``.

    A point that is itself a row of ``index`` counts as its own first neighbour.

    Raises:
        ValueError: If there are fewer than ``k`` rows.
    """
    if len(index) < k:
        raise ValueError(
            f"the task has {len(index)} training samples, fewer than the {k} neighbours that virtual outliers are "
            f"scored with; lower `neighbours` to at most {len(index)}."
        )
    points, index = (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (points, index))
    blocks = []
    with torch.autocast(points.device.type, enabled=False):  # differences of 16-bit products would be noise
        squares = index.square().sum(1)
        for block in points.split(_BLOCK):
            distance = block.square().sum(1, keepdim=True) - 2 * block @ index.T + squares
            blocks.append(distance.kthvalue(k, dim=1).values)
    return torch.cat(blocks)


def synthesize_outliers(
    features: Tensor,
    num_classes: int,
    mode: OutlierMode = "boundary",
    neighbours: int = 50,
    boundary_points: int = 50,
    draws: int = 600,
    noise: float = 0.1,
    per_class: int = 40,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Outliers for a task, in descending order of their distance from its features.

    Candidates are scored by the squared distance to the ``neighbours``-th nearest unit-length feature; the highest
    ``per_class * num_classes`` are kept, not normalised. ``"boundary"`` is what the paper describes (after NPOS):
    Gaussian noise around the features that are themselves furthest from their neighbours. ``"origin"`` is what the
    released code does: the boundary points are not used, so each draw of noise around 0 appears ``boundary_points``
    times.

    Args:
        features: ``(N, D)`` features of the task, as they reach the head.
        num_classes: Classes of the task.
        mode: See above.
        neighbours: ``K``; the point itself counts as the first.
        boundary_points: Features to start from.
        draws: Gaussian vectors, shared by all boundary points.
        noise: Standard deviation of the noise (``cov`` in the released code).
        per_class: Outliers per class of the task.
        generator: CPU generator of the draws.

    Returns:
        ``(n, D)`` with ``n = min(boundary_points * draws, per_class * num_classes)``.

    Raises:
        ValueError: If there are fewer features than ``neighbours`` or ``boundary_points``, or ``mode`` is unknown.
    """
    if mode not in ("boundary", "origin"):
        raise ValueError(f'`mode` is {mode!r}; give "boundary" (as described) or "origin" (as released).')
    if mode == "boundary" and len(features) < boundary_points:
        raise ValueError(
            f"the task has {len(features)} training samples, fewer than `boundary_points={boundary_points}`; lower it."
        )
    unit = F.normalize(features, dim=1)
    wanted = min(boundary_points * draws, per_class * num_classes)
    eps = torch.randn(draws, features.shape[1], generator=generator, dtype=torch.float64).to(features)
    if mode == "origin":
        candidates = noise * eps
        order = kth_neighbour_distance(candidates, unit, neighbours).argsort(descending=True, stable=True)
        distinct = order[: -(-wanted // boundary_points)]
        return candidates[distinct].repeat_interleave(boundary_points, dim=0)[:wanted]
    boundary = kth_neighbour_distance(unit, unit, neighbours).argsort(descending=True, stable=True)[:boundary_points]
    candidates = (features[boundary, None] + noise * eps).flatten(0, 1)
    order = kth_neighbour_distance(candidates, unit, neighbours).argsort(descending=True, stable=True)
    return candidates[order[:wanted]]


def energy(logits: Tensor) -> Tensor:
    """``-logsumexp`` over the classes, ``(B, C)`` to ``(B,)``; classes with logit -inf do not count."""
    return -logits.logsumexp(dim=-1)


def outlier_regularizer(
    inlier_energy: Tensor,
    outlier_energy: Tensor,
    inlier_threshold: float = -15.0,
    outlier_threshold: float = -3.0,
    huber: bool = True,
) -> Tensor:
    """Hinges that want a high energy mass on the task's features and a low one on outliers (OVOR, eq. 4).

    ``mean h(max(0, E_in - tau_in)) + mean h(max(0, tau_out - E_out))`` with Huber's function (delta 1), or the square.

    Args:
        inlier_energy: ``(B,)`` energies of features.
        outlier_energy: ``(O,)`` energies of outliers.
        inlier_threshold: Features are pushed below this energy.
        outlier_threshold: Outliers are pushed above this energy.
        huber: Huber's function instead of the square.

    Returns:
        A scalar, at least 0; exactly 0 with zero gradient when all are satisfied.
    """
    inside = (inlier_energy - inlier_threshold).clamp_min(0)
    outside = (outlier_threshold - outlier_energy).clamp_min(0)
    if huber:
        zero_in, zero_out = torch.zeros_like(inside), torch.zeros_like(outside)
        return F.huber_loss(inside, zero_in) + F.huber_loss(outside, zero_out)
    return inside.square().mean() + outside.square().mean()


def share_of_step(outliers: Tensor, batch_idx: int, num_batches: int) -> Tensor:
    """The step's share of ``(n, D)`` outliers, in the order in which they were made; at least one."""
    size = max(len(outliers) // int(num_batches), 1)
    start = (batch_idx * size) % len(outliers)
    return outliers[start : start + size]
