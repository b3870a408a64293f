"""Discrete key-value bottleneck: a feature finds its nearest key in many codebooks, and their values answer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyValueHead(nn.Module):
    """Logits are the mean of the values of the nearest keys (DKVB, arXiv:2207.11240).

    Codebook ``h`` of ``H`` projects a feature to ``q_h = f R_h``, with normal ``R_h`` of unit columns, and fetches
    the value of the nearest of ``P`` keys. Keys are fitted once and then fixed. A step of gradient descent on the
    cross-entropy moves only what was fetched, so what one input learned is not forgotten by another with other keys.

    Args:
        num_classes: ``C``.
        width: Feature size, ``D``.
        codebooks: ``H``.
        pairs: Keys, and values, of each codebook, ``P``.
        key_width: Channels of a key.
        lr: Learning rate of the values; a value's gradient is divided by ``H``.
        label_smoothing: Over all classes, those without samples included, in [0, 1).
        clip: Most of the gradient's norm, above 0.
        seed: Of the projections and the keys.
    """

    projection: Tensor
    keys: Tensor
    values: Tensor
    used: Tensor
    counts: Tensor
    growing: tuple[str, ...] = ("values", "counts")

    def __init__(
        self,
        num_classes: int,
        width: int,
        codebooks: int = 256,
        pairs: int = 4096,
        key_width: int = 14,
        lr: float = 0.3,
        label_smoothing: float = 0.1,
        clip: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lr, self.label_smoothing, self.clip = lr, label_smoothing, clip
        generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        draws = torch.randn(codebooks, width, key_width, generator=generator)
        self.register_buffer("projection", F.normalize(draws, dim=1))
        self.register_buffer("keys", torch.randn(codebooks, pairs, key_width, generator=generator))
        self.register_buffer("values", torch.zeros(codebooks, pairs, num_classes))
        self.register_buffer("used", torch.zeros(codebooks, pairs, dtype=torch.bool))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.float64))

    def queries(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(H, B, K)`` queries in the keys' dtype."""
        with torch.autocast(features.device.type, enabled=False):  # near ties would flip
            return features.detach().to(self.projection.dtype) @ self.projection

    def nearest(self, features: Tensor, fetched_only: bool = False) -> Tensor:
        """``(H, B)`` places of the nearest keys; optionally among those that were fetched in training."""
        books = zip(self.queries(features), self.keys, self.used, strict=True)  # one at a time: (B, P) is large
        return torch.stack([_nearest(query, keys, used if fetched_only else None) for query, keys, used in books])

    def fetch(self, codes: Tensor) -> Tensor:
        """``(H, B)`` places to ``(B, C)`` means of values."""
        rows = torch.arange(len(codes), device=codes.device)[:, None]
        return self.values[rows, codes].mean(0)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits; -inf for classes without samples. Carries no gradient."""
        return self.fetch(self.nearest(features, fetched_only=True)).masked_fill(self.counts == 0, -torch.inf)

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """One step of gradient descent on ``(B, D)`` features of classes ``(B,)``; rows with weight 0 do not count."""
        if weights is not None:
            features, targets = features[weights > 0], targets[weights > 0]
        if not len(targets):
            return
        codes, targets = self.nearest(features), targets.long()
        labels = F.one_hot(targets, len(self.counts)).to(self.values.dtype)
        goal = (1 - self.label_smoothing) * labels + self.label_smoothing / len(self.counts)
        error = (self.fetch(codes).softmax(1) - goal) / (len(codes) * len(targets))  # (B, C), of each fetched value
        shared = (codes.T[:, None] == codes.T[None]).sum(2)  # (B, B): codebooks in which two inputs meet
        norm = (shared * (error @ error.T)).sum().clamp_min(0).sqrt()
        error = error * (self.clip / norm.clamp_min(self.clip))
        rows = torch.arange(len(codes), device=codes.device)[:, None].expand_as(codes)
        self.values.index_put_((rows, codes), (-self.lr * error).expand(len(codes), -1, -1), accumulate=True)
        self.used[rows, codes] = True
        self.counts += labels.sum(0)

    @torch.no_grad()
    def fit_keys(self, features: Tensor, epochs: int, batch_size: int, decay: float = 0.95) -> None:
        """Fit the keys to ``(N, D)`` unlabelled features by moving averages, in shuffled batches; afterwards they stay.

        A key moves to the mean of what it was nearest to; one that is hardly used is put on a random query.
        """
        generator = torch.Generator().manual_seed(self.seed)
        size, total = torch.zeros_like(self.keys[..., 0]), torch.zeros_like(self.keys)
        for _ in range(epochs):
            for rows in torch.randperm(len(features), generator=generator).split(batch_size):
                queries = self.queries(features[rows.to(features.device)])
                for book, query in enumerate(queries):
                    self._move_keys(book, query, size[book], total[book], decay)
                self._revive(queries, size, total, 0.1 * batch_size / size.shape[1], generator)

    def _move_keys(self, book: int, query: Tensor, size: Tensor, total: Tensor, decay: float) -> None:
        """Moving averages of one codebook: ``(P,)`` hits and ``(P, K)`` sums of ``(B, K)`` queries."""
        hits = F.one_hot(_nearest(query, self.keys[book]), len(size)).to(query.dtype)  # (B, P)
        size.lerp_(hits.sum(0), 1 - decay)
        total.lerp_(hits.T @ query, 1 - decay)
        smoothed = (size + 1e-5) / (size.sum() + len(size) * 1e-5) * size.sum()
        self.keys[book] = total / smoothed[:, None]

    def _revive(self, query: Tensor, size: Tensor, total: Tensor, least: float, generator: torch.Generator) -> None:
        """Put keys with fewer hits than ``least`` on random ones of ``(H, B, K)`` queries."""
        place = torch.randint(query.shape[1], size.shape, generator=generator).to(query.device)
        drawn = query.gather(1, place[..., None].expand(-1, -1, query.shape[2]))
        dead = (size < least)[..., None]
        self.keys.copy_(torch.where(dead, drawn, self.keys))
        total.copy_(torch.where(dead, least * drawn, total))
        size.clamp_(min=least)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.values.shape[0]} x {self.values.shape[1]} pairs, {self.values.shape[2]} classes"


def _nearest(query: Tensor, keys: Tensor, among: Tensor | None = None) -> Tensor:
    """``(B,)`` places of the nearest of ``(P, K)`` keys, of those ``among`` ``(P,)`` bool; 0 where there are none."""
    query, keys = query.double(), keys.double()  # near ties would flip with the size of the batch
    away = keys.square().sum(1) - 2 * query @ keys.T  # (B, P), less what all keys share
    return (away if among is None else away.masked_fill(~among, torch.inf)).argmin(1)
