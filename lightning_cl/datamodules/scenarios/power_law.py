"""Environments in which old tasks come back, the more rarely the longer ago they were."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.scenarios.base import Scenario, check_order
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.task import Order

Decay = Literal["power", "exponential"]
Rehearsal = Literal["mixture", "counts"]


def recurrence(lag: np.ndarray, decay: Decay, rate: float) -> np.ndarray:
    """Weight of a task that was current ``lag`` tasks ago: ``(lag + 1) ** -rate``, or ``exp(-rate * lag)``."""
    return np.exp(-rate * lag) if decay == "exponential" else (lag + 1.0) ** -rate


def mixture_weights(task: int, decay: Decay, rate: float, share: float = 1.0) -> np.ndarray:
    """Expected share of each task ``0 .. task`` in every batch of ``task``; adds up to 1.

    Args:
        task: The current one.
        decay: See :func:`recurrence`.
        rate: See :func:`recurrence`.
        share: Part of the batch that is composed by the weights; the rest is the current task's.
    """
    weights = recurrence(np.arange(task, -1, -1), decay, rate)
    mixed: np.ndarray = share * weights / weights.sum()
    mixed[task] += 1.0 - share
    return mixed


def rehearsal_counts(
    sizes: Sequence[int], mode: Rehearsal, decay: Decay, rate: float, amount: float, rng: np.random.RandomState
) -> np.ndarray:
    """Number of samples of each old task that come back while the last of ``sizes`` is current, ``(task,)``.

    All samples of the current task come once. In a ``"mixture"`` the others are drawn so that the task's batches have
    the shares of :func:`mixture_weights` (``amount`` is its ``share``); in ``"counts"`` an old task brings ``amount``
    samples times its weight, where the task before the current one has weight 1.
    """
    task = len(sizes) - 1
    if mode == "counts":
        return np.rint(amount * recurrence(np.arange(task - 1, -1, -1), decay, rate)).astype(np.int64)
    shares = mixture_weights(task, decay, rate, amount)
    total = int(np.rint(sizes[task] * (1.0 - shares[task]) / shares[task]))
    drawn: np.ndarray = rng.multinomial(total, shares[:task] / max(shares[:task].sum(), np.finfo(float).tiny))
    return drawn


def draw(positions: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """``count`` positions at random; none comes again before all have come."""
    rounds = [rng.permutation(positions) for _ in range(-(-count // len(positions)))]
    return np.concatenate(rounds)[:count] if rounds else positions[:0]


class PowerLaw(Scenario):
    """A stream whose old tasks come back, with a probability that decays with the time since (arXiv:2401.10393).

    The environment brings them: samples are drawn from the old tasks' whole training sets, not from a bounded buffer,
    so compare only with the same :meth:`rehearsal_shares`. As a reference that needs no method it is strong. The
    published summaries leave constants open; the two readings of them are ``mode``.

    Args:
        tasks: The stream without recurrence, for example ``ClassIncremental(10)``.
        mode: ``"mixture"``: batches are composed by weight, the current task's being the largest, until all of its
            samples have come once; ``"counts"``: of a task that was current ``k`` tasks ago come
            ``samples * weight(k - 1)``.
        decay: ``"power"``: weights ``(k + 1) ** -rate``; ``"exponential"``: ``exp(-rate * k)``, as a control.
        rate: 0: all tasks seen so far have the same weight; large: plain sequential training. ``None``: 1 for
            ``"power"``, 0.5 for ``"exponential"``.
        mixed_share: For ``"mixture"``: part of every batch that is composed by the weights, in [0, 1]; the rest is the
            current task's.
        samples: For ``"counts"``: samples of the last old task that come back.
        order: ``"stream"``: each task is one ordered pass; ``"shuffled"``: as many epochs as wanted.
        seed: Seed of the draws and of the order of arrival; ``None``: the stream's.

    Raises:
        ValueError: If a number is out of range or a choice is unknown.
    """

    def __init__(
        self,
        tasks: Scenario,
        mode: Rehearsal = "mixture",
        decay: Decay = "power",
        rate: float | None = None,
        mixed_share: float = 1.0,
        samples: int = 500,
        order: Order = "stream",
        seed: int | None = None,
    ) -> None:
        if mode not in ("mixture", "counts"):
            raise ValueError(f"`mode` is {mode!r}; expected 'mixture' or 'counts'.")
        if decay not in ("power", "exponential"):
            raise ValueError(f"`decay` is {decay!r}; expected 'power' or 'exponential'.")
        for name, value in (("rate", rate), ("samples", samples)):
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"`{name}` is {value}; give a number of at least 0.")
        if not 0 <= mixed_share <= 1:
            raise ValueError(f"`mixed_share` is {mixed_share}; give a share of the batch, in [0, 1].")
        check_order(order)
        self.tasks, self.mode, self.decay = tasks, mode, decay
        self.rate = rate if rate is not None else {"power": 1.0, "exponential": 0.5}[decay]
        self.mixed_share, self.samples = mixed_share, samples
        self.order, self.seed = order, seed

    def for_source(self, source: Source) -> Scenario:
        """The same recurrence over the stream that ``tasks`` is for this source."""
        made = copy(self)
        made.tasks = self.tasks.for_source(source)
        return made

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples in order of arrival: its own once, and those that come back."""
        parts = [part.numpy() for part in self.tasks.train_tasks(labels, domains, num_classes, seed)]
        rng = np.random.RandomState(mix_seed(seed if self.seed is None else self.seed, len(parts)) % 2**32)
        amount = self.mixed_share if self.mode == "mixture" else self.samples
        tasks = []
        for task in range(len(parts)):
            sizes = [len(part) for part in parts[: task + 1]]
            counts = rehearsal_counts(sizes, self.mode, self.decay, self.rate, amount, rng)
            back = [draw(part, int(count), rng) for part, count in zip(parts[:task], counts, strict=True)]
            tasks.append(torch.from_numpy(rng.permutation(np.concatenate([parts[task], *back]))))
        return tasks

    def eval_tasks(
        self,
        labels: Tensor,
        domains: Tensor | None,
        num_classes: int,
        seed: int,
        classes_per_task: Sequence[Sequence[int]],
    ) -> list[Tensor]:
        """Positions of each task's evaluation samples, as in the stream without recurrence."""
        return self.tasks.eval_tasks(labels, domains, num_classes, seed, classes_per_task)

    def rehearsal_shares(
        self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int = 0
    ) -> tuple[float, ...]:
        """Share of each task's samples that are old tasks', in [0, 1)."""
        own = self.tasks.train_tasks(labels, domains, num_classes, seed)
        tasks = self.train_tasks(labels, domains, num_classes, seed)
        return tuple(1.0 - len(a) / len(b) for a, b in zip(own, tasks, strict=True))
