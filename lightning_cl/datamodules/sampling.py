"""Which samples every rank gets at every step: pure functions, and the stateless plans made of them.

A batch is defined globally and then shared out, so a result does not depend on the number of processes: the union of
the ranks' shares of batch ``b`` is the single-process batch ``b``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix_seed(*values: int) -> int:
    """Well-mixed seed in ``[0, 2**63)`` from integers; the same on every machine (SplitMix64 finaliser)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state ^ (value & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def share(count: int, world_size: int, rank: int) -> tuple[int, int]:
    """Start and stop of a rank's contiguous share of ``count`` items; shares differ by at most one item."""
    base, extra = divmod(count, world_size)
    start = rank * base + min(rank, extra)
    return start, start + base + (rank < extra)


def permutation(count: int, *seed: int) -> Tensor:
    """Random order of ``count`` items, ``(count,)`` int64, that depends on nothing but ``seed``."""
    generator = torch.Generator().manual_seed(mix_seed(*seed))
    return torch.randperm(count, generator=generator)


def with_replay(own: Tensor, old: Tensor, share: float) -> Tensor:
    """Put samples of earlier tasks among those of a task, evenly and in the place of some of them.

    Of the first ``n`` samples ``floor(n * share)`` are old, whatever ``n``: batches of 1104 with a share of 0.05 have
    55 or 56 old samples each, and 276 in five.

    Args:
        own: ``(N,)`` positions of the task's samples in order of arrival; the last ones are left out.
        old: ``(M,)`` positions of earlier tasks' samples, at least one; the first ones are taken, again from the start
            where they do not suffice.
        share: Of old samples, in [0, 1].

    Returns:
        ``(N,)`` positions.
    """
    count = len(own)
    due = (torch.arange(count + 1, dtype=torch.float64) * share + 1e-9).floor().long()
    is_old = due.diff().bool()
    taken = int(due[-1])
    mixed = torch.empty_like(own)
    mixed[~is_old] = own[: count - taken]
    mixed[is_old] = old[torch.arange(taken) % len(old)]
    return mixed


@dataclass(frozen=True)
class TrainBatch:
    """One rank's share of a global training batch.

    Attributes:
        index: ``(B_local,)`` positions in the training split. Never empty: a rank that gets nothing repeats the
            batch's first sample.
        real: Number of entries of ``index`` that count; smaller than ``len(index)`` only for such a repeated sample.
        weight: What the rank's mean loss must be multiplied by, so that DDP's mean over the ranks is the mean over
            the global batch: ``world_size * real / B_global``. Exactly 1 when all shares are equal.
        update: How often the same samples were handed out before in a row; see ``updates`` of :class:`TrainPlan`.
    """

    index: Tensor
    real: int
    weight: float
    update: int = 0


@dataclass(frozen=True)
class TrainPlan:
    """The training batches of one epoch.

    Args:
        index: ``(N,)`` positions in the training split, in order of arrival.
        batch_size: Global batch size.
        drop_last: Leave out a last batch that is not full.
        shuffle: Draw a new order every epoch; ``False`` for an online stream.
        seed: Decides the order, together with the epoch.
        updates: How often every batch comes in a row, each time with fresh augmentation.
        old: ``(M,)`` positions of earlier tasks' samples, drawn anew every epoch; ``None``: none come.
        replay_share: Of old samples; see :func:`with_replay`.
    """

    index: Tensor
    batch_size: int
    drop_last: bool = False
    shuffle: bool = True
    seed: int = 0
    updates: int = 1
    old: Tensor | None = None
    replay_share: float = 0.0

    def __len__(self) -> int:
        full, rest = divmod(len(self.index), self.batch_size)
        return (full + (rest > 0 and not self.drop_last)) * self.updates

    def order(self, epoch: int) -> Tensor:
        """Positions in order of arrival in ``epoch``, ``(N,)``."""
        own = self.index[permutation(len(self.index), self.seed, epoch)] if self.shuffle else self.index
        if self.old is None:
            return own
        return with_replay(own, self.old[permutation(len(self.old), self.seed, epoch, 0x01D)], self.replay_share)

    def rows(self, order: Tensor, batch_idx: int) -> Tensor:
        """The global batch ``batch_idx`` of an epoch in the given order, ``(B,)``."""
        start = batch_idx // self.updates * self.batch_size
        return order[start : start + self.batch_size]

    def batch(self, order: Tensor, batch_idx: int, world_size: int = 1, rank: int = 0) -> TrainBatch:
        """The share of ``rank`` in batch ``batch_idx`` of an epoch in the given order."""
        rows = self.rows(order, batch_idx)
        start, stop = share(len(rows), world_size, rank)
        real = stop - start
        own = rows[start:stop] if real else rows[:1]
        return TrainBatch(own, real, world_size * real / len(rows), batch_idx % self.updates)


@dataclass(frozen=True)
class EvalPlan:
    """The evaluation batches: every sample once, in the given order, without padding.

    A last batch with fewer samples than processes joins the one before it, so that all ranks make the same number of
    steps. Only a data set smaller than the number of processes needs repeated samples; they are never counted.

    Args:
        index: ``(N,)`` positions in the evaluation split, see :func:`evaluation_order`.
        batch_size: Global batch size.
        world_size: Number of processes.
        runs: Sizes of the parts, one behind the other, that no batch reaches beyond; ``None``: all is one part.
    """

    index: Tensor
    batch_size: int
    world_size: int = 1
    runs: tuple[int, ...] | None = None

    @cached_property
    def _starts(self) -> list[int]:
        """Where every batch starts, and the end of the last one."""
        starts, end = list[int](), 0
        for size in (len(self.index),) if self.runs is None else self.runs:
            full, rest = divmod(size, self.batch_size)
            count = full + (rest > 0 and (rest >= self.world_size or full == 0))
            starts += range(end, end + count * self.batch_size, self.batch_size)
            end += size
        return [*starts, end]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def order(self) -> Tensor:
        """Positions in order of evaluation, ``(N,)``."""
        return self.index

    def batch(self, order: Tensor, batch_idx: int, rank: int = 0) -> TrainBatch:
        """The share of ``rank`` in evaluation batch ``batch_idx``; see :class:`TrainBatch`."""
        rows = order[slice(*self._starts[batch_idx : batch_idx + 2])]
        start, stop = share(len(rows), self.world_size, rank)
        real = stop - start
        return TrainBatch(rows[start:stop] if real else rows[:1], real, self.world_size * real / len(rows))


def evaluation_order(parts: Sequence[Tensor], seed: int) -> Tensor:
    """Samples of the tasks one after the other, mixed within each task, ``(N,)``.

    With more tasks the order is only continued, so full batches stay the same from one evaluation to the next, and
    what was remembered of them can be used again.
    """
    return torch.cat([part[permutation(len(part), seed, task)] for task, part in enumerate(parts)])


def leading_share(sizes: Sequence[int], rows: int) -> Tensor:
    """Order of ``sum(sizes)`` samples, task by task, in which the first ``rows`` are a share of every task, ``(N,)``.

    Shares are in proportion to the sizes, and at least one sample; with fewer rows than tasks some tasks have none.

    Args:
        sizes: Samples of each task; they come one task after the other.
        rows: Number of samples to share out.
    """
    counts, total = torch.tensor(sizes), sum(sizes)
    rows = min(rows, total)
    least = (counts > 0).long()
    if rows < int(least.sum()):
        counts, least = least, torch.zeros_like(counts)
    rest, left = (counts - least).cumsum(0), rows - int(least.sum())
    size = max(int(rest[-1]), 1)
    shares = least + (2 * left * rest + size).div(2 * size, rounding_mode="floor").diff(prepend=torch.zeros(1).long())
    starts = torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)
    place = torch.arange(total) - starts.repeat_interleave(torch.tensor(sizes))  # of each sample in its task
    return (place >= shares.repeat_interleave(torch.tensor(sizes))).long().argsort(stable=True)


def hold_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Stratified split of ``(N,)`` labels into sorted positions ``(kept, held out)``.

    Every class gives ``round(fraction * n)`` samples, at least one, and keeps at least one.

    Raises:
        ValueError: If ``fraction`` is not in (0, 1) or a class has fewer than two samples.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"`val_split` is {fraction}; give a fraction of the training data in (0, 1), or 0 for none.")
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label, members in enumerate(_members(labels)):
        if len(members) == 0:
            continue
        if len(members) < 2:
            raise ValueError(
                f"class {label} has {len(members)} training sample(s), so `val_split={fraction}` would leave it none; "
                "give it more samples or set `val_split=0`."
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[members[permutation(len(members), seed, label)[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def keep_back(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """``(N,)`` bool: ``floor(fraction * n)`` random samples of every class of ``(N,)`` labels, none of a small one."""
    back = torch.zeros(len(labels), dtype=torch.bool)
    for label, members in enumerate(_members(labels)):
        count = int(fraction * len(members))
        back[members[permutation(len(members), seed, label)[:count]]] = True
    return back


def _members(labels: Tensor) -> tuple[Tensor, ...]:
    """Ascending positions of every class, from one stable sort, however many classes there are."""
    parts: tuple[Tensor, ...] = labels.argsort(stable=True).split(torch.bincount(labels).tolist())
    return parts
