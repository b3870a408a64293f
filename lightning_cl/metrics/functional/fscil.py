"""Few-shot class-incremental metrics: how base and novel classes fare, session by session.

``acc`` is the class-incremental accuracy matrix, ``(T, T)`` in [0, 1] with the base session as task 0; ``sizes`` are
the ``(T,)`` test samples of the tasks, since sessions are of very different size and papers pool the samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, finished_block, finished_row, undefined
from lightning_cl.metrics.functional.accuracy import accuracy_per_stage


def performance_drop(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """Accuracy after the base session minus accuracy now, ``PD = A_0 - A_s`` in [-1, 1].

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished sessions, the base session included; all by default.
        sizes: ``(T,)`` test samples of each session. Given, all samples are pooled, as papers do.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``sizes`` is not ``(T,)`` of values >= 0.
    """
    stages = accuracy_per_stage(acc, k, sizes=sizes)
    return stages[0] - stages[-1]


def base_accuracy(acc: MatrixLike, k: int | None = None) -> Tensor:
    """Accuracy on the classes of the base session after every session, ``(k,)`` float64 in [0, 1].

    Raises:
        ValueError: If ``acc`` is not square or ``k`` is not in ``1..T``.
    """
    return finished_block(acc, k)[:, 0]


def novel_accuracy(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """Accuracy on all classes after the base session, ``(k,)`` float64 in [0, 1]; NaN after the base session.

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished sessions, the base session included; all by default.
        sizes: ``(T,)`` test samples of each session. Given, samples are pooled; without, sessions weigh the same.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``sizes`` is not ``(T,)``.
    """
    block = finished_block(acc, k)
    weights = torch.ones_like(block[0])
    if sizes is not None:
        weights = finished_row("sizes", sizes, len(finished_block(acc, None)), block)
    used = torch.ones_like(block).tril().bool()
    used[:, 0] = False
    return torch.where(used, block * weights, 0).sum(1) / torch.where(used, weights, 0).sum(1)


def harmonic_mean(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """``HM_s = 2 b n / (b + n)`` of base and novel accuracy after every session, ``(k,)``; 0 where both are 0.

    NaN after the base session, where there is no novel class yet: leave it out of an average.

    Args:
        acc: ``(T, T)`` in [0, 1].
        k: Number of finished sessions, the base session included; all by default.
        sizes: As in :func:`novel_accuracy`.

    Raises:
        ValueError: As :func:`novel_accuracy`.
    """
    base, novel = base_accuracy(acc, k), novel_accuracy(acc, k, sizes=sizes)
    total = base + novel
    return torch.where(total == 0, torch.zeros_like(total), 2 * base * novel / total)


def average_harmonic_mean(acc: MatrixLike, k: int | None = None, *, sizes: RowLike | None = None) -> Tensor:
    """Mean of :func:`harmonic_mean` over the sessions after the base session, in [0, 1]; NaN without any.

    Raises:
        ValueError: As :func:`novel_accuracy`.
    """
    return harmonic_mean(acc, k, sizes=sizes)[1:].mean()


def generalised_accuracy(acc: MatrixLike, ratio: int, k: int | None = None) -> Tensor:
    """Generalised accuracy for each weight ``alpha = 0 .. ratio`` of the base session, ``(ratio + 1,)`` in [0, 1].

    ``g_i(alpha) = (alpha r_0 + sum_{m>=1} r_m) / (i + alpha)`` with the accuracies ``r`` after session ``i``, averaged
    over the sessions; after the base session it is ``r_0``, but 0 for ``alpha = 0``: that 0 is part of the published
    definition (the code of the joint-training FSCIL benchmark, utils/metrics.py).

    Args:
        acc: ``(T, T)`` in [0, 1].
        ratio: Number of base classes divided by the ways of a session, 12 for 60 and 5.
        k: Number of finished sessions, the base session included; all by default.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T`` or ``ratio`` is below 1.
    """
    block = finished_block(acc, k)
    if ratio < 1:
        raise ValueError(f"`ratio` is {ratio}, the number of base classes divided by the ways; give at least 1.")
    alpha = torch.arange(ratio + 1, dtype=block.dtype, device=block.device)[:, None]  # (ratio + 1, 1)
    later = torch.where(torch.ones_like(block).tril(0).bool(), block, 0)[:, 1:].sum(1)  # (k,)
    count = torch.arange(len(block), dtype=block.dtype, device=block.device)
    values = (alpha * block[:, 0] + later) / (count + alpha).clamp_min(1e-300)
    return torch.where((count == 0) & (alpha == 0), 0, values).mean(1)


def generalised_accuracy_area(acc: MatrixLike, ratio: int, k: int | None = None) -> Tensor:
    """Area under :func:`generalised_accuracy` over ``alpha`` by the trapezoid rule, divided by ``ratio``, in [0, 1].

    Raises:
        ValueError: As :func:`generalised_accuracy`.
    """
    return torch.trapezoid(generalised_accuracy(acc, ratio, k)) / ratio


def session_summary(acc: MatrixLike, k: int, sizes: RowLike) -> dict[str, Tensor]:
    """The few-shot numbers of a report after ``k`` sessions, samples pooled.

    Raises:
        ValueError: As :func:`novel_accuracy`.
    """
    pooled = accuracy_per_stage(acc, k, sizes=sizes)
    nothing = undefined(pooled)
    return {
        "average_session_accuracy": pooled.mean(),
        "performance_drop": performance_drop(acc, k, sizes=sizes) if k > 1 else nothing,
        "base_accuracy": base_accuracy(acc, k)[-1],
        "novel_accuracy": novel_accuracy(acc, k, sizes=sizes)[-1],
        "harmonic_mean": harmonic_mean(acc, k, sizes=sizes)[-1],
        "average_harmonic_mean": average_harmonic_mean(acc, k, sizes=sizes) if k > 1 else nothing,
    }


def episode_interval(accuracies: RowLike) -> tuple[Tensor, Tensor]:
    """Mean of an accuracy over episodes, and half of the width of its 95 % interval, ``1.96 s / sqrt(n)``.

    Args:
        accuracies: ``(n,)`` one of each episode, in any unit.

    Raises:
        ValueError: If there are fewer than 2 episodes.
    """
    values = torch.as_tensor(accuracies, dtype=torch.float64).flatten()
    if len(values) < 2:
        raise ValueError(f"there are {len(values)} episodes, from which no interval follows; give at least 2.")
    return values.mean(), 1.96 * values.std() / len(values) ** 0.5
