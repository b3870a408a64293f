"""One positive and one negative for each incoming sample, and the loss that compares them (ER-AML)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Partners(NamedTuple):
    """One positive and one negative of each anchor, as places among memory and incoming batch.

    Attributes:
        anchors: ``(A,)`` rows of the incoming batch that have both.
        positives: ``(A,)`` of the same class, and not the anchor itself.
        negatives: ``(A,)`` of another class of the incoming batch.
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor


def draw_partners(incoming: Tensor, held: Tensor, generator: torch.Generator) -> Partners:
    """Draw a positive and a negative for each incoming sample, each uniformly among those that there are.

    Args:
        incoming: ``(B,)`` labels of the incoming batch.
        held: ``(M,)`` labels of the memory; places count these first.
        generator: On the CPU.
    """
    pool = torch.cat([held, incoming])
    itself = torch.arange(len(held), len(pool)) == torch.arange(len(pool))[:, None]  # (M + B, B)
    same = pool[:, None] == incoming
    positive, negative = same & ~itself, ~same & torch.isin(pool, incoming)[:, None]
    anchors = (positive.any(0) & negative.any(0)).nonzero().flatten()
    found = (
        torch.multinomial(valid[:, anchors].T.double(), 1, generator=generator).flatten()
        if len(anchors)
        else anchors.clone()
        for valid in (positive, negative)
    )
    return Partners(anchors, *found)


def asymmetric_contrast(
    anchors: Tensor, labels: Tensor, pool: Tensor, pool_labels: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy of anchors with all partners of their class, among the partners of all anchors.

    ``mean_a -1/|P_a| sum_{p in P_a} log(exp(u_a u_p / T) / sum_{q} exp(u_a u_q / T))`` with unit features ``u``.

    Args:
        anchors: ``(A, D)``, at least one.
        labels: ``(A,)``.
        pool: ``(Q, D)``, with at least one of each anchor's class.
        pool_labels: ``(Q,)``.
        temperature: Above 0.
    """
    log_p = (F.normalize(anchors, dim=1) @ F.normalize(pool, dim=1).T / temperature).log_softmax(dim=1)
    positive = labels[:, None] == pool_labels
    return -(log_p.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)).mean()
