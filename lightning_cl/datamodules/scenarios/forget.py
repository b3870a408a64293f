"""Continual forgetting: classes are learned first, and then to be forgotten again, in steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed, permutation
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.scenarios.joint import Joint
from lightning_cl.datamodules.scenarios.orders import ids_of

if TYPE_CHECKING:
    from lightning_cl.datamodules.sources.base import Source


class Forget(Scenario):
    """Learn, and then forget classes on request: one task for each request, behind the tasks in which they are learned.

    What a method may read in the task of a request: **all** training samples of the classes that it asks to forget, and
    the retained samples, a share of every class that is neither asked for now nor was before. They are drawn once from
    the seed and are the same in every request, as if nothing else had been kept; a class that was forgotten is never
    read again. ``task.forgets`` and ``info.forgets_per_task`` name the classes.

    Every validation is over all evaluation samples. A class that is forgotten is evaluated in the task of its request,
    from the first validation on; all others in the task that brought them. So column ``t`` of the accuracy matrix is
    the forget-accuracy of request ``t``, before and after it, and the first columns are the retain-accuracy. The report
    has both, with the harmonic mean of what was forgotten and what was retained.

    Args:
        requests: For each request the classes to be forgotten, by id or name.
        retained: Share of each class's training samples that may still be read, in [0, 1], at least one; 0: none.
        learn: How the classes are learned; ``None``: all in one task.
        seed: Seed of the retained samples; ``None``: the stream's.

    Raises:
        ValueError: If there is no request, one is empty, or ``retained`` is not in [0, 1]; from :meth:`train_tasks`, if
            a class was never learned or is to be forgotten twice, or nothing would be retained.
    """

    evaluates_all = True

    def __init__(
        self,
        requests: Sequence[Sequence[int | str]],
        retained: float = 0.1,
        learn: Scenario | None = None,
        seed: int | None = None,
    ) -> None:
        empty = [at for at, request in enumerate(requests) if not len(request)]
        if not len(requests) or empty:
            which = f"request {empty[0]} names no class" if empty else "there is no request"
            raise ValueError(f"`requests` is {requests!r}: {which}, so nothing would be forgotten; name classes.")
        if not 0 <= retained <= 1:
            raise ValueError(f"`retained` is {retained}; give a share of each class's samples in [0, 1].")
        self.learn = Joint() if learn is None else learn
        if self.learn.order != "shuffled":
            raise ValueError(
                f"`learn` is an online stream ({type(self.learn).__name__}), but requests are trained on in epochs; "
                "learn the classes with a scenario that is shuffled."
            )
        self.asked, self.retained, self.seed = [list(request) for request in requests], retained, seed
        self.requests: tuple[tuple[int, ...], ...] = ()  # as ids, once the names are known
        self.remarks = (
            f"the last {len(requests)} of the tasks ask to forget classes; {100 * retained:g} % of the samples of each "
            "class that is retained may be read there",
            *self.learn.remarks,
        )

    def for_source(self, source: Source) -> Scenario:
        """With the source's ids for names."""
        found = copy.copy(self)
        found.learn = self.learn.for_source(source)
        found.requests = tuple(tuple(sorted(ids_of(request, source.class_names, "requests"))) for request in self.asked)
        return found

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of the samples to learn from, and for each request of those to forget and those retained."""
        tasks = self.learn.train_tasks(labels, domains, num_classes, seed)
        known = torch.cat(tasks).unique()
        self._check(labels[known].unique().tolist(), num_classes)
        kept = known[self._kept(labels[known], mix_seed(seed if self.seed is None else self.seed, 0xF02))]
        gone = list[int]()
        for request in self.requests:
            gone += request
            forget, retain = (
                known[torch.isin(labels[known], _ids(request))],
                kept[~torch.isin(labels[kept], _ids(gone))],
            )
            tasks.append(torch.cat([forget, retain]).sort().values)
        return tasks

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions by the task that learns a class, or by the request that asks to forget it."""
        learned = classes_per_task[: len(classes_per_task) - len(self.requests)]
        parts = self.learn.eval_tasks(labels, domains, num_classes, seed, learned)
        every, asked = torch.cat(parts).sort().values, _ids([c for request in self.requests for c in request])
        rest = [part[~torch.isin(labels[part], asked)] for part in parts]
        return rest + [every[torch.isin(labels[every], _ids(request))] for request in self.requests]

    def _kept(self, labels: Tensor, seed: int) -> Tensor:
        """``(N,)`` bool: the samples of ``(N,)`` labels that may be read later."""
        kept = torch.zeros(len(labels), dtype=torch.bool)
        for label in labels.unique().tolist():
            members = (labels == label).nonzero().flatten()
            count = max(round(self.retained * len(members)), 1) if self.retained else 0
            kept[members[permutation(len(members), seed, label)[:count]]] = True
        return kept

    def _check(self, learned: list[int], num_classes: int) -> None:
        gone = set[int]()
        for at, request in enumerate(self.requests):
            unknown = sorted(set(request) - set(learned))
            again = sorted({c for c in request if c in gone or request.count(c) > 1})
            if unknown:
                raise ValueError(
                    f"request {at} asks to forget the classes {unknown}, which were never learned; the stream learns "
                    f"{len(learned)} of {num_classes} classes ({learned[:10]}), so ask for some of these."
                )
            if again:
                raise ValueError(f"request {at} asks to forget the classes {again} a second time; name each once.")
            gone |= set(request)
        if gone == set(learned):
            raise ValueError(
                f"the requests forget all {len(learned)} classes that were learned, so nothing would be retained; "
                "leave at least one class out of them."
            )


def _ids(classes: Sequence[int]) -> Tensor:
    return torch.tensor(list(classes), dtype=torch.long)
