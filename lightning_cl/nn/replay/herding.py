"""Herding: the items whose running mean of features stays closest to the class mean."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lightning_cl.nn.replay.policies import Policy


def herding(features: Tensor, count: int) -> Tensor:
    """Rows in herding order (iCaRL, Rebuffi et al., arXiv:1611.07725, algorithm 4); any prefix is itself a choice.

    With unit-length features ``f`` and their mean ``m``, the ``k``-th row is the one, not chosen yet, that minimises
    ``|m - (f + sum of those chosen before) / k|``. Ties go to the earlier row.

    Args:
        features: ``(N, D)``, of one class, of any length.
        count: How many to choose.

    Returns:
        ``(min(count, N),)`` int64 rows, on the features' device.
    """
    unit = F.normalize(features.double(), dim=1)
    mean, total = unit.mean(0), torch.zeros_like(unit[0]) if len(unit) else None
    left_out = torch.zeros(len(unit), dtype=torch.float64, device=unit.device)  # infinite for chosen rows
    chosen: list[Tensor] = []
    for k in range(1, min(count, len(unit)) + 1):
        assert total is not None
        distance = (mean - (unit + total) / k).square().sum(1)
        best = (distance + left_out).argmin()
        left_out[best] = torch.inf
        total = total + unit[best]
        chosen.append(best)
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.long, device=unit.device)


class Herding(Policy):
    """iCaRL's exemplars: ``capacity // classes`` of each class, chosen by herding when the class is given.

    One call gives **all** candidates of its classes, as at the end of a task. Earlier classes keep the first of their
    exemplars; a class that is given again is chosen anew.

    Raises:
        ValueError: In :meth:`place`, without features, or when there are more classes than slots.
    """

    name = "herding"
    by_features = True

    def __init__(self) -> None:
        self.rank = torch.zeros(0, dtype=torch.long)  # place of each slot's item in its class's herding order

    def release(self, labels: Tensor, held: Tensor) -> Tensor:
        """Slots of classes that are given anew, and of exemplars beyond the classes' new share."""
        if len(labels) == 0 or len(self.rank) == 0:
            return torch.empty(0, dtype=torch.long)
        beyond = (held >= 0) & (self.rank >= _share(labels, held))
        return (beyond | torch.isin(held, labels)).nonzero().flatten()

    def place(self, labels: Tensor, held: Tensor, generator: Generator, features: Tensor | None = None) -> Tensor:
        """See :class:`Policy`; nothing is drawn, and what :meth:`release` names must be empty."""
        slots = torch.full_like(labels, -1)
        if len(labels) == 0:
            return slots
        if features is None:
            raise ValueError("herding chooses by features, but none were given; pass `features`, one row per item.")
        if len(self.rank) == 0:
            self.rank = torch.zeros(len(held), dtype=torch.long)
        size, free = _share(labels, held), (held < 0).nonzero().flatten()
        for label in labels.unique():
            members = (labels == label).nonzero().flatten()
            chosen = members[herding(features[members.to(features.device)], size).cpu()]
            mine, free = free[: len(chosen)], free[len(chosen) :]
            slots[chosen] = mine
            self.rank[mine] = torch.arange(len(chosen))
        return slots

    def state_dict(self) -> dict[str, Any]:
        """Herding rank of every slot."""
        return {"rank": self.rank.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.rank = state["rank"].cpu().clone()


def _share(labels: Tensor, held: Tensor) -> int:
    """Slots per class, with the classes of the batch."""
    classes = len(torch.cat([held[held >= 0], labels]).unique())
    if classes > len(held):
        raise ValueError(f"{classes} classes cannot have an exemplar each in {len(held)} slots; enlarge the memory.")
    return len(held) // classes
