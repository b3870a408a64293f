"""Cosine classifiers: with trained rows, and with the fixed rows of a simplex."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.head_layer import class_rows, other_parameters


def cosine_logits(features: Tensor, rows: Tensor, scale: Tensor | float) -> Tensor:
    """``(B, D)`` features and ``(C, D)`` rows to ``(B, C)`` logits in ``[-scale, scale]``."""
    return scale * F.normalize(features, dim=1) @ F.normalize(rows, dim=1).T


def cosine_answer(head: nn.Linear, features: Tensor, scale: Tensor | float) -> Tensor:
    """Cosine logits with the rows of a linear head in place of its own; its bias takes no part.

    Args:
        head: With ``C`` rows.
        features: ``(B, D)`` that it was given.
        scale: Of the cosines.

    Returns:
        ``(B, C)`` logits in ``[-scale, scale]``.
    """
    own = cosine_logits(features.to(head.weight.dtype), class_rows(head), scale)
    return own + 0.0 * other_parameters(head)


def proxy_logits(features: Tensor, proxies: Tensor, scale: Tensor | float) -> Tensor:
    """Cosine logits of classes with several rows each (local similarity classifier of PODNet, arXiv:2004.13513, eq. 9).

    Args:
        features: ``(B, D)``.
        proxies: ``(C, P, D)``.
        scale: Of the scores.

    Returns:
        ``(B, C)``: ``scale * sum_k softmax_k(c_k) c_k`` of the ``P`` cosines ``c_k`` of a class.
    """
    cosines: Tensor = cosine_logits(features, proxies.flatten(0, 1), 1.0).unflatten(1, proxies.shape[:2])  # (B, C, P)
    return scale * (cosines.softmax(dim=2) * cosines).sum(dim=2)


@torch.no_grad()
def imprint_rows(weight: Tensor, means: Tensor, old: Sequence[int], new: Sequence[int]) -> None:
    """Put class means into new rows of a cosine head, as long as its old rows (LUCIR, CVPR 2019), in place.

    Args:
        weight: ``(C, D)``.
        means: ``(C, D)`` means of features of unit length, of any length.
        old: Rows whose mean length the new ones get, at least one.
        new: Rows that are filled.
    """
    rows = weight.flatten(1)
    length = torch.linalg.vector_norm(rows[list(old)], dim=1).mean()
    rows[list(new)] = length * F.normalize(means[list(new)], dim=1).to(rows)


class CosineHead(nn.Linear):
    """Logits ``scale * cos(feature, row)`` (LUCIR, CVPR 2019); a ``Linear``, so that class masks find it.

    Args:
        width: Feature size, ``D``.
        num_classes: Rows, ``C``.
        scale: At the start, above 0.
        learn_scale: Train the scale, as LUCIR and PILOT's heads do.
    """

    def __init__(self, width: int, num_classes: int, scale: float = 1.0, learn_scale: bool = True) -> None:
        super().__init__(width, num_classes, bias=False)
        self.scale = nn.Parameter(torch.full((), scale), requires_grad=learn_scale)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits in ``[-scale, scale]``."""
        return cosine_logits(features, self.weight, self.scale)


def simplex_etf(num_classes: int, width: int, generator: torch.Generator) -> Tensor:
    """``(C, D)`` float64 unit rows of which any two have the cosine ``-1 / (C - 1)``, turned at random.

    A simplex equiangular tight frame (neural collapse, arXiv:2008.08186).

    Raises:
        ValueError: If ``D < C - 1``: so many rows do not fit.
    """
    if width < num_classes - 1:
        raise ValueError(
            f"{num_classes} rows at equal angles need at least {num_classes - 1} channels, but features have {width}; "
            "use fewer classes, or project the features to more channels first."
        )
    k = torch.arange(1, num_classes, dtype=torch.float64)  # Helmert's matrix: an orthonormal basis of the simplex
    below = torch.arange(num_classes, dtype=torch.float64) < k[:, None]
    corner = torch.diag_embed(-k, offset=1)[:-1]
    basis = (below + corner) / (k * (k + 1)).sqrt()[:, None]  # (C - 1, C)
    turn = torch.linalg.qr(torch.randn(width, num_classes - 1, dtype=torch.float64, generator=generator)).Q
    return F.normalize((turn @ basis).T, dim=1)


class ETFHead(nn.Linear):
    """A cosine head whose rows are a fixed simplex, for the classes of the whole stream (arXiv:2302.03004).

    Args:
        width: Feature size, ``D``, at least ``C - 1``.
        num_classes: Rows, ``C``.
        generator: Turns the simplex; the same one gives the same rows on every process.
        scale: Of the cosines, above 0.

    Raises:
        ValueError: If ``D < C - 1``.
    """

    def __init__(self, width: int, num_classes: int, generator: torch.Generator, scale: float = 1.0) -> None:
        super().__init__(width, num_classes, bias=False)
        del self.weight
        self.register_buffer("weight", simplex_etf(num_classes, width, generator).to(torch.get_default_dtype()))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits in ``[-scale, scale]``."""
        return cosine_logits(features, self.weight, self.scale)
