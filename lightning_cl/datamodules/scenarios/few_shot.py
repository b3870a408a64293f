"""Few-shot class-incremental learning (FSCIL): a base session, then sessions of few classes with few samples."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import permutation
from lightning_cl.datamodules.scenarios.base import Scenario, check_every_class
from lightning_cl.datamodules.scenarios.index_lists import listed_samples, read_index_lists
from lightning_cl.datamodules.scenarios.orders import OrderRule, class_order, with_ids
from lightning_cl.datamodules.scenarios.table import TableScenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.table import StreamTable


def session_sizes(num_classes: int, base_classes: int, ways: int, sessions: int | None = None) -> list[int]:
    """Number of classes of the base session and of each session after it.

    Raises:
        ValueError: If the classes do not suffice, or (without ``sessions``) are not used up.
    """
    left = num_classes - base_classes
    if sessions is None:
        if left < 0 or left % ways:
            raise ValueError(
                f"`base_classes` is {base_classes} and `ways` is {ways}, but there are {num_classes} classes: {left} "
                f"are left after the base session, which is no multiple of {ways}; choose others, or say how many "
                "`sessions`."
            )
        sessions = left // ways
    if sessions * ways > left:
        raise ValueError(
            f"{sessions} sessions of {ways} classes after {base_classes} base classes need "
            f"{base_classes + sessions * ways} classes, but there are {num_classes}; use at most "
            f"{max(left, 0) // ways} sessions."
        )
    return [base_classes, *[ways] * sessions]


def few_shot(labels: Tensor, order: Sequence[int], sizes: Sequence[int], shots: int, seed: int) -> list[Tensor]:
    """Positions of each session's samples: all of the base classes, ``shots`` of each later class.

    Args:
        labels: ``(N,)`` int64.
        order: Class ids in order of arrival; those beyond ``sum(sizes)`` never arrive.
        sizes: Number of classes of each session, the base session first.
        shots: Samples of each class after the base session.
        seed: Decides which samples, class by class: other classes or sessions do not change them.

    Raises:
        ValueError: If a class has fewer than ``shots`` samples.
    """
    sessions, start = [], 0
    for number, size in enumerate(sizes):
        members = [(labels == c).nonzero().flatten() for c in order[start : start + size]]
        if number:
            short = [int(c) for c, m in zip(order[start : start + size], members, strict=True) if len(m) < shots]
            if short:
                raise ValueError(f"the classes {short} have fewer than `shots`={shots} training samples; lower it.")
            chosen = zip(members, order[start : start + size], strict=True)
            members = [m[permutation(len(m), seed, int(c))[:shots]] for m, c in chosen]
        sessions.append(torch.cat(members).sort().values)
        start += size
    return sessions


class FewShot(Scenario):
    """FSCIL (Tao et al., arXiv:2004.10956): a base session with all its data, then sessions of ``ways`` x ``shots``.

    With ``index_lists`` the samples are those that were published (CEC, arXiv:2104.03047, and all after it); without,
    they are drawn from the seed, which the report says, since results are then not comparable with published ones.
    Samples of the classes after the base session that are not drawn are not part of the stream.

    Args:
        base_classes: Classes of the base session: 60 for CIFAR-100 and miniImageNet, 100 for CUB-200.
        ways: New classes in each later session.
        shots: Training samples of each of them.
        sessions: Number of later sessions; by default as many as there are classes for.
        class_order: As in :class:`ClassIncremental`; published protocols take the natural order.
        index_lists: Folder with ``session_1.txt``, ... or an ``.npz`` of such lists; integers count the training split
            of the source, texts name its files.
        dataset: Whose lists to take where several are together: ``"cifar100"``, ``"mini_imagenet"``, ``"cub200"``.
        seed: Seed of order and samples; ``None``: the stream's.

    Raises:
        ValueError: If a number is below 1; from :meth:`train_tasks`, if the classes or samples do not suffice; from
            :meth:`for_source`, if the lists do not fit the source or the numbers given here.
    """

    few_shot = True

    def __init__(
        self,
        base_classes: int = 60,
        ways: int = 5,
        shots: int = 5,
        sessions: int | None = None,
        class_order: OrderRule | str | os.PathLike[str] | Sequence[int | str] = "natural",
        index_lists: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        seed: int | None = None,
    ) -> None:
        named = (("base_classes", base_classes), ("ways", ways), ("shots", shots), ("sessions", sessions))
        for name, value in named:
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        if dataset is not None and index_lists is None:
            raise ValueError(f"`dataset` is {dataset!r} but there are no `index_lists` to take its lists from.")
        self.base_classes, self.ways, self.shots, self.sessions = base_classes, ways, shots, sessions
        self.class_order, self.index_lists, self.dataset, self.seed = class_order, index_lists, dataset, seed
        drawn = "few-shot samples were drawn from the seed, so results do not compare with published lists"
        self.remarks = (drawn if index_lists is None else "few-shot samples are those of published index lists",)

    def for_source(self, source: Source) -> Scenario:
        """With index lists: the listed sessions over the source's images."""
        if self.index_lists is None:
            return with_ids(self, "class_order", source.class_names)
        labels = source.train_labels
        lists = read_index_lists(self.index_lists, self.dataset)
        if self.sessions is not None:
            lists = lists[: self.sessions + 1]
        tasks = listed_samples(lists, source.file_names("train"), labels)
        self._check(tasks, labels)
        return TableScenario(StreamTable.from_tasks(tasks, labels))

    def _check(self, tasks: Sequence[Tensor], labels: Tensor) -> None:
        held = [len(labels[index].unique()) for index in tasks]
        wanted = [self.base_classes, *[self.ways] * (len(tasks) - 1)]
        counts = [labels[index].unique(return_counts=True)[1].unique().tolist() for index in tasks[1:]]
        if held != wanted or any(count != [self.shots] for count in counts):
            raise ValueError(
                f"the index lists have {held} classes per session with {sorted({c for k in counts for c in k})} "
                f"samples each, but `base_classes`={self.base_classes}, `ways`={self.ways} and `shots`={self.shots} "
                "were asked for; give the numbers of the lists, and lists of this data set."
            )

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each session's samples, sorted ascending."""
        check_every_class(labels, num_classes)
        seed = seed if self.seed is None else self.seed
        sizes = session_sizes(num_classes, self.base_classes, self.ways, self.sessions)
        return few_shot(labels, class_order(num_classes, self.class_order, seed), sizes, self.shots, seed)
