"""Keys by which updates are retrieved: compared with queries group by group of channels, and fitted to them (SLM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.datamodules.sampling import permutation
from lightning_cl.nn.matching import cosine_similarity


def group_similarity(query: Tensor, keys: Tensor) -> Tensor:
    """``(B, P)`` cosines of ``(B, D)`` queries with ``(P, G, D / G)`` keys, in the mean over the ``G`` groups."""
    groups, width = keys.shape[1:]
    parts = query[:, : groups * width].unflatten(1, (groups, width)).transpose(0, 1)  # (G, B, D / G)
    return cosine_similarity(parts, keys.transpose(0, 1)).mean(0)


def retrieved(similarity: Tensor, topk: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The ``topk`` of ``(B, P)`` similarities by ``softmax(s / temperature)``: ids and shares that sum to 1."""
    best = (similarity / temperature).softmax(1).topk(topk, dim=1)
    return best.indices, best.values / (best.values.sum(1, keepdim=True) + 1e-9)


def fit_group_keys(
    queries: Tensor, shape: tuple[int, ...], topk: int, seed: int, task: int, epochs: int, lr: float, batch_size: int
) -> Tensor:
    """Keys that are orthogonal within each group at first, then drawn towards the queries by AdamW.

    Args:
        queries: ``(N, D)``.
        shape: ``(P, G, D / G)`` of the keys.
        topk: How many of the nearest keys each query draws.
        seed: Of the stream.
        task: Which task it is for; another one has other draws.
        epochs: Passes over the queries.
        lr: Learning rate.
        batch_size: Queries in a step.

    Returns:
        Keys whose groups have unit length.
    """
    generator = torch.Generator().manual_seed(seed + task)
    drawn = torch.randn(shape[1], max(shape[2], shape[0]), shape[0], generator=generator)
    start = torch.linalg.qr(drawn).Q.mT[:, :, : shape[2]].transpose(0, 1).to(queries)  # (P, G, D / G)
    keys = nn.Parameter(start.contiguous())
    optimizer = torch.optim.AdamW([keys], lr=lr)
    with torch.enable_grad():
        for epoch in range(epochs):
            order = permutation(len(queries), seed, task, epoch).to(queries.device)
            for rows in order.split(batch_size):
                loss = -group_similarity(queries[rows], keys).topk(topk, dim=1).values.mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return F.normalize(keys.detach(), dim=-1)
