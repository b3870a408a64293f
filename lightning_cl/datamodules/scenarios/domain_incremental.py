"""Domain-incremental learning: every task brings the classes in a new domain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.scenarios.orders import class_order, with_ids

if TYPE_CHECKING:
    from lightning_cl.datamodules.sources.base import Source


def domain_incremental(domains: Tensor, order: Sequence[int]) -> list[Tensor]:
    """Positions of each task's samples, sorted ascending; task ``t`` is domain ``order[t]``.

    Args:
        domains: ``(N,)`` int64 in ``0 .. len(order) - 1``.
        order: All domain ids in order of arrival.
    """
    return [(domains == domain).nonzero().flatten() for domain in order]


class DomainIncremental(Scenario):
    """One task per domain of the source; evaluation is by domain too.

    Args:
        domain_order: ``"natural"``: by id; ``"shuffled"``: from the seed; a list of all domain ids or names; or a file
            of them.
        seed: Seed of the domain order; ``None``: the stream's.

    Raises:
        ValueError: From :meth:`train_tasks`, if the source has no domains, a domain has no samples, or a list
            ``domain_order`` does not name each domain once.
    """

    needs_classes = False

    def __init__(
        self,
        domain_order: Literal["natural", "shuffled"] | str | os.PathLike[str] | Sequence[int | str] = "natural",
        seed: int | None = None,
    ) -> None:
        self.domain_order, self.seed = domain_order, seed

    def for_source(self, source: Source) -> Scenario:
        """With the source's ids for names and files."""
        return with_ids(self, "domain_order", source.domain_names)

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each domain's samples, sorted ascending: disjoint, and together all of them."""
        domains = _required(domains)
        found = torch.unique(domains).tolist()
        if found != list(range(len(found))):
            raise ValueError(f"the domains are {found[:10]}; number them 0..{len(found) - 1} without gaps.")
        return domain_incremental(domains, self._order(len(found), seed))

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of each domain's evaluation samples, in the order of the training tasks."""
        # The number of tasks is the number of training domains, of which an evaluation split may lack some.
        return domain_incremental(_required(domains), self._order(len(classes_per_task), seed))

    def _order(self, num_domains: int, seed: int) -> list[int]:
        return class_order(num_domains, self.domain_order, seed if self.seed is None else self.seed)


def _required(domains: Tensor | None) -> Tensor:
    if domains is None:
        raise ValueError(
            "`DomainIncremental` needs a domain per sample, but the source has none; pass `train_domains=` and "
            "`test_domains=` to the source, or use `ClassIncremental`."
        )
    return domains
