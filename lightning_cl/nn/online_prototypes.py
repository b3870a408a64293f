"""Contrast of class prototypes and of instances within a batch, and pairs of classes that are mixed up (OnPro)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def class_means(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``(K, D)`` means of the classes among ``(N, D)`` rows of ``(N,)`` labels, and the ``(K,)`` sorted classes."""
    classes, places = labels.unique(return_inverse=True)
    members = F.one_hot(places, len(classes)).to(rows)
    return members.T @ rows / members.sum(0)[:, None], classes


def prototype_contrast(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """Tell ``(K, D)`` prototypes of one view from each other by those of another (OnPro, arXiv:2308.00301, eq. 3).

    ``-log(exp(u_i v_i / T) / sum_{j != i} exp(u_i w_j / T))`` over all prototypes ``w`` of both views but its own, mean
    over both views; 0 for less than two classes, which nothing can be told from.
    """
    if len(first) < 2:
        return 0.0 * (first.sum() + second.sum())
    unit = F.normalize(torch.cat([first, second]), dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(unit), device=unit.device).roll(len(first)))


def instance_contrast(similarity: Tensor, labels: Tensor) -> Tensor:
    """Loss of the stream's rows: ``2 *`` that of rows of one label, plus that of the two views of a row.

    As in the official code: a row's weight is one over the number of rows of its label, itself counted, and what the
    code adds for itself, a constant, is left out.

    Args:
        similarity: ``(2N, 2N)`` over the temperature; row ``i + N`` is the second view of row ``i``.
        labels: ``(2N,)``.
    """
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    log_p = similarity - similarity.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
    same = labels[:, None] == labels
    of_class = -(log_p.masked_fill(~same | own, 0.0).sum(1) / same.sum(1)).mean()
    half = len(labels) // 2
    of_views = -(log_p[:half, half:].diagonal().mean() + log_p[half:, :half].diagonal().mean()) / 2
    return of_views + 2 * of_class


def class_contrast(similarity: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """Loss of the memory's rows: each among rows of its label, itself included on both sides, as in the official code.

    Args:
        similarity: ``(N, N)`` over the temperature.
        labels: ``(N,)`` numbers; of a mixed image one between those of its classes.
        anchors: ``(N,)`` bool: the rows that are asked; 0 without any.
    """
    same = labels[:, None] == labels
    each = -(similarity.log_softmax(1).masked_fill(~same, 0.0).sum(1) / same.sum(1))
    return each.masked_fill(~anchors, 0.0).sum() / anchors.sum().clamp_min(1)


def pair_shares(prototypes: Tensor) -> Tensor:
    """``(P,)`` ``softmax(1 / distance)`` of all pairs of ``(K, D)`` prototypes, in the order of ``triu_indices``."""
    return (1 / torch.nn.functional.pdist(prototypes).clamp_min(1e-3)).softmax(0)


def whole_counts(shares: Tensor, quota: int) -> Tensor:
    """``(P,)`` whole numbers that sum to ``quota``, as near to ``quota * shares`` as may be (largest remainders)."""
    wanted = quota * shares.double()
    counts = wanted.floor().long()
    order = (wanted - counts).sort(descending=True, stable=True).indices
    counts[order[: quota - int(counts.sum())]] += 1
    return counts


class Mixture(NamedTuple):
    """Samples of the memory, each mixed with another: ``(1 - share) * first + share * second``.

    Attributes:
        first: ``(n,)`` slots.
        second: ``(n,)`` slots.
        share: ``(n,)`` float64 in [0, 1]; 0: the first alone.
    """

    first: Tensor
    second: Tensor
    share: Tensor


def draw_mixture(
    held: Tensor, prototypes: tuple[Tensor, Tensor] | None, count: int, random: float, mixed: float, seed: int
) -> Mixture:
    """Draw a batch of the memory: some at random, the others from pairs of classes with prototypes close to each other.

    Args:
        held: ``(capacity,)`` class id of every slot, -1: empty; at least one is not.
        prototypes: ``(K, D)`` of ``(K,)`` classes; ``None``: all samples are random.
        count: Samples; random ones are different from each other, and fewer if there are not as many.
        random: Share of random samples, in [0, 1].
        mixed: How many of all are mixed, as a probability: random ones with a uniform share of at most 0.6, pairs with
            a share from ``Beta(0.4, 0.4)``.
        seed: Of all that is drawn.
    """
    rng, used = np.random.default_rng(seed), (held >= 0).nonzero().flatten().numpy()
    chosen: list[list[int]] = []
    if prototypes is not None:
        known = [k for k, label in enumerate(prototypes[1].tolist()) if bool((held == label).any())]
        counts = whole_counts(pair_shares(prototypes[0][known].cpu().double()), count - round(random * count))
        members = [(held == int(prototypes[1][k])).nonzero().flatten().numpy() for k in known]
        pairs = torch.triu_indices(len(known), len(known), 1).T.tolist()
        for (a, b), number in zip(pairs, counts.tolist() if pairs else [], strict=True):
            chosen += [[rng.choice(members[a]), rng.choice(members[b])] for _ in range(number)]
    plain = rng.permutation(used)[: count - len(chosen)]
    shares = np.concatenate([rng.uniform(0, 0.6, len(plain)), rng.beta(0.4, 0.4, len(chosen))])
    shares *= rng.random(len(shares)) < mixed
    first = np.concatenate([plain, [a for a, _ in chosen]]).astype(np.int64)
    second = np.concatenate([rng.permutation(plain), [b for _, b in chosen]]).astype(np.int64)
    return Mixture(*map(torch.from_numpy, (first, second, shares)))
