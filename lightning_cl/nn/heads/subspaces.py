"""Class means in the feature spaces of several adapters, and what they answer together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.load_hooks import after_load


def synthesized_means(means: Tensor, known: Tensor, task_of: Tensor) -> Tensor:
    """``(P, C, D)`` means with those filled in that no data exist for (EASE, arXiv:2403.12030).

    A class of task ``i`` has no mean in a later space ``d``: there it is ``sum_j S_j m_j``, over the classes ``j`` that
    have one in both spaces, with ``S = softmax_j cos(m, m_j)`` of the means in space ``i``.

    Args:
        means: ``(P, C, D)``.
        known: ``(P, C)`` bool: which of them are of data.
        task_of: ``(C,)`` the space in which a class was learned last.
    """
    out = means.clone()
    for d in range(1, len(means)):
        for i in range(d):
            old = (task_of == i) & known[i] & ~known[d]
            donors = known[d] & known[i]
            if bool(old.any()) and bool(donors.any()):
                alike = F.normalize(means[i, old], dim=1) @ F.normalize(means[i, donors], dim=1).T
                out[d, old] = alike.softmax(dim=1) @ means[d, donors]
    return out


def subspace_logits(features: Tensor, means: Tensor, task_of: Tensor, others: float) -> Tensor:
    """``(B, C)``: the cosine in a class's own space, and ``others`` times the mean of those in the other spaces.

    Args:
        features: ``(B, P, D)``.
        means: ``(P, C, D)``.
        task_of: ``(C,)`` each class's own space.
        others: ``alpha``.
    """
    cosines = F.normalize(features, dim=2).transpose(0, 1) @ F.normalize(means, dim=2).mT  # (P, B, C)
    own = torch.arange(len(means), device=means.device)[:, None] == task_of
    weights = torch.where(own, 1.0, others / max(len(means) - 1, 1)).to(cosines)
    return (cosines * weights[:, None]).sum(dim=0)


def refined_logits(logits: Tensor, first: Tensor, task_of: Tensor, known: Tensor, rounds: int = 4) -> Tensor:
    """``(B, C)`` logits of the path that each sample settles on (MOS, arXiv:2412.09441).

    From the path ``first`` on, a sample goes to the path of the class that it is taken for, until it stays.

    Args:
        logits: ``(B, P, C)`` of every path.
        first: ``(B,)`` paths.
        task_of: ``(C,)`` path of each class.
        known: ``(C,)`` bool: the classes that may be chosen.
        rounds: Times that logits are looked at, at most.
    """
    onward = task_of[logits.masked_fill(~known, -torch.inf).argmax(dim=2)]  # (B, P)
    rows, path = torch.arange(len(logits), device=logits.device), first
    for _ in range(rounds - 1):
        path = onward[rows, path]
    return logits[rows, path]


class SubspaceMeans(nn.Module):
    """Means of each class in the spaces of several adapters, from exact sums.

    Args:
        spaces: Adapters, ``T``.
        num_classes: ``C``.
        width: ``D``.
    """

    sums: Tensor
    counts: Tensor
    task_of: Tensor
    growing: tuple[str, ...] = ("sums", "counts", "task_of")

    def __init__(self, spaces: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(spaces, num_classes, width, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(spaces, num_classes, dtype=torch.float64))
        self.register_buffer("task_of", torch.zeros(num_classes, dtype=torch.long))
        self._means: Tensor | None = None
        after_load(self, "_forget_means")

    def _forget_means(self) -> None:
        self._means = None

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add ``(B, P, D)`` features in the first ``P`` spaces, the last of which the task of ``(B,)`` classes has."""
        spaces = features.shape[1]
        members = F.one_hot(targets.long(), self.counts.shape[1]).double()
        self.sums[:spaces] += members.T @ features.double().transpose(0, 1)
        self.counts[:spaces] += members.sum(0)
        self.task_of[targets.long()] = spaces - 1
        self._means = None

    def forward(self, features: Tensor, others: float) -> Tensor:
        """``(B, P, D)`` features in the first ``P`` spaces to ``(B, C)`` logits; -inf for classes without samples."""
        spaces, known = features.shape[1], self.counts > 0
        if self._means is None or self._means.device != self.sums.device or len(self._means) != spaces:
            means = self.sums[:spaces] / self.counts[:spaces].clamp_min(1)[:, :, None]
            self._means = synthesized_means(means, known[:spaces], self.task_of)
        dtype = torch.promote_types(features.dtype, torch.float32)
        logits = subspace_logits(features.to(dtype), self._means.to(dtype), self.task_of, others)
        return logits.masked_fill(~known[0], -torch.inf)
