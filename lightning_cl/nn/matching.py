"""Matching queries with keys: cosine similarity, top-k selection, and the vote of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_similarity(query: Tensor, keys: Tensor) -> Tensor:
    """``(B, D)`` queries with ``(..., M, D)`` keys: ``(..., B, M)`` in [-1, 1]; norms are floored at 1e-6."""
    with torch.autocast(query.device.type, enabled=False):  # small, and 16-bit products would choose other keys
        return F.normalize(query.to(keys.dtype), dim=-1, eps=1e-6) @ F.normalize(keys, dim=-1, eps=1e-6).mT


def vote(ids: Tensor, num_prompts: int, k: int) -> Tensor:
    """The ``k`` prompts that a batch selected most often; ties go to the lower id.

    The vote is over the global batch, so it does not depend on the number of processes. Predictions that use it
    depend on the batch: for reproduction only.

    Args:
        ids: ``(B, k)`` ids in ``0 .. num_prompts - 1``.
        num_prompts: Size of the pool.
        k: Number of winners.

    Returns:
        ``(k,)`` ids, most frequent first.
    """
    flat = ids.flatten()
    counts = torch.zeros(num_prompts, dtype=torch.long, device=ids.device).index_add(0, flat, torch.ones_like(flat))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    # Unique ranks: a higher count wins, then the lower id.
    rank = counts * num_prompts - torch.arange(num_prompts, device=ids.device)
    return rank.topk(k).indices


def pull_similarity(similarity: Tensor, ids: Tensor) -> Tensor:
    """Mean over the batch of the summed similarity with the selected keys (L2P, arXiv:2112.08654, eq. 5).

    Args:
        similarity: ``(B, M)`` cosine similarities.
        ids: ``(B, k)`` selected keys of each sample, or ``(k,)`` when all share them.

    Returns:
        A scalar in [-k, k]. Its gradient goes to the selected keys only.
    """
    chosen = similarity.gather(1, ids.expand(len(similarity), -1))
    return chosen.sum(dim=1).mean()


def spread_scores(similarity: Tensor, counts: Tensor) -> Tensor:
    """``(B, P)`` cosines as in [0, 1], times the inverse counts of the ``P`` choices so far, which sum to 1."""
    rarity = 1 / (counts + 1e-6)
    return (similarity + 1) / 2 * (rarity / rarity.sum()).to(similarity.dtype)
