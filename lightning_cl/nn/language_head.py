"""A classifier of frozen semantic targets: cosines between features and vectors of class names."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Match = Literal["auto", "lift", "project", "compress"]
Similarity = Literal["cosine", "dot"]


def auto_scale(mean_cosine: float, num_classes: int, epsilon: float = 0.01) -> float:
    """Scale at which features on their targets reach a probability of ``1 - epsilon``.

    ``s = ln((K - 1)(1 - eps) / eps) / (1 - rho)``: at ``s = 1`` the cross-entropy of cosine logits cannot fall below
    about ``ln K``, whatever is learned.

    Args:
        mean_cosine: Mean cosine ``rho`` between two different targets, below 1.
        num_classes: Classes that compete, ``K``; at least 2 are counted.
        epsilon: Probability left to the other classes.
    """
    others = max(num_classes, 2) - 1
    return math.log(others * (1 - epsilon) / epsilon) / max(1 - mean_cosine, 1e-3)


def mean_off_diagonal(targets: Tensor) -> float:
    """Mean cosine between two different rows of ``(n, D)``; 0 for a single row."""
    rows = F.normalize(targets.double(), dim=1)
    n = len(rows)
    return 0.0 if n < 2 else float(((rows @ rows.T).sum() - n) / (n * (n - 1)))


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """``(rows, columns)`` float32 matrix with orthonormal columns (or rows, whichever are fewer), from a seed."""
    generator = torch.Generator().manual_seed(seed)
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q: Tensor = torch.linalg.qr(tall)[0]
    return (q if rows >= columns else q.T).float().contiguous()


class LanguageHead(nn.Module):
    """Logits ``z_c = s * <f / |f|, w_c>`` with frozen unit rows ``w_c`` (LingoCL, arXiv:2403.16124).

    Rows are a buffer: no gradient, no optimiser state, no decay. All shapes are fixed from the start; classes arrive by
    :meth:`add`.

    Args:
        num_classes: Rows, ``C``.
        width: Feature size, ``D``.
        target_dim: Length of the targets, ``T``.
        match: How features and targets meet. ``"lift"`` (``D >= T``): targets are turned into the feature space by an
            isometry, which keeps all their cosines; ``"project"``: a trained linear layer takes features to ``T``;
            ``"compress"`` (``D < T``): targets are turned and cut, which keeps cosines only roughly; ``"auto"``: lift
            where it is possible, else project.
        similarity: ``"cosine"``, or ``"dot"``: features keep their length.
        scale: A number above 0; ``"auto"``, see :func:`auto_scale`, set with the first classes, as soon as there are
            two; or ``"learnable"``, which starts there.
        seed: Of lift and compression.

    Raises:
        ValueError: If ``match`` does not fit the sizes, or an option is unknown.
    """

    weight: Tensor
    known: Tensor
    scale: Tensor
    turn: Tensor | None

    growing = ("weight", "known")

    def __init__(
        self,
        num_classes: int,
        width: int,
        target_dim: int,
        match: Match = "auto",
        similarity: Similarity = "cosine",
        scale: float | Literal["auto", "learnable"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if match == "auto":
            match = "lift" if width >= target_dim else "project"
        if match == "lift" and width < target_dim:
            raise ValueError(
                f"targets of length {target_dim} cannot be lifted into features of size {width} without loss; use "
                '`match="project"` or `"compress"`.'
            )
        if match == "compress" and width > target_dim:
            raise ValueError(f'targets of length {target_dim} fit into features of size {width}; use `match="lift"`.')
        self.match, self.similarity, self.automatic = match, similarity, isinstance(scale, str)
        inner = target_dim if match == "project" else width
        self.project = nn.Linear(width, inner, bias=False) if match == "project" else None
        self.register_buffer("weight", torch.zeros(num_classes, inner))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))
        turned = match != "project" and width != target_dim
        self.register_buffer("turn", orthonormal(width, target_dim, seed) if turned else None)
        self.register_buffer("scale", torch.tensor(float("nan") if isinstance(scale, str) else float(scale)))
        self.log_scale = nn.Parameter(torch.zeros(())) if scale == "learnable" else None

    def add(self, classes: Tensor, targets: Tensor) -> None:
        """Rows of new classes; rows that are there stay bit for bit.

        Args:
            classes: ``(n,)`` class ids.
            targets: ``(n, T)`` vectors of any length but zero.
        """
        rows = F.normalize(targets.double(), dim=1)
        if self.turn is not None:
            rows = F.normalize(rows @ self.turn.cpu().double().T, dim=1)
        classes = classes.to(self.weight.device)
        single = int(self.known.sum()) < 2  # has no angle to another, so nothing to take a scale from
        self.weight[classes] = rows.to(self.weight)
        self.known[classes] = True
        if self.automatic and single:
            self.scale.fill_(auto_scale(mean_off_diagonal(self.weight[self.known]), len(self.weight)))
            if self.log_scale is not None:
                with torch.no_grad():
                    self.log_scale.copy_(self.scale.log())

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits; -inf for classes without a target."""
        dtype = features.dtype if features.dtype == torch.float64 else torch.float32  # norms of 16 bits underflow
        with torch.autocast(features.device.type, enabled=False):
            x = features.to(dtype)
            if self.project is not None:
                x = F.linear(x, self.project.weight.to(dtype))
            if self.similarity == "cosine":
                x = F.normalize(x, dim=1, eps=1e-6)
            scale = self.scale if self.log_scale is None else self.log_scale.exp().clamp(1.0, 100.0)
            logits = scale.to(dtype) * (x @ self.weight.to(dtype).T)
        return logits.masked_fill(~self.known, -torch.inf)

    def extra_repr(self) -> str:
        """Sizes and options."""
        return f"{len(self.weight)} x {self.weight.shape[1]}, match={self.match!r}, similarity={self.similarity!r}"
