"""What was lost: four quantities that papers call "forgetting", on one accuracy matrix four different numbers.

``acc`` is ``(T, T)``, ``acc[i, j]`` is accuracy on task ``j`` after training task ``i``, ids from 0, NaN where not
measured. A NaN in a cell that a formula uses makes the result NaN. With one finished task there is no old task: NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, counted_tasks, finished_block, undefined

TaskVariant = Literal["chaudhry", "max_incl_last", "first_minus_last"]
ForgettingVariant = Literal["chaudhry", "max_incl_last", "first_minus_last", "one_step"]


def forgetting(
    acc: MatrixLike,
    k: int | None = None,
    *,
    variant: ForgettingVariant = "chaudhry",
    from_first_seen: bool = True,
    higher_is_better: bool = True,
    has_data: Tensor | Sequence[bool] | None = None,
) -> Tensor:
    """Mean loss of accuracy on the old tasks; 0.2 is 20 points lost. Say the variant with the number.

    With ``n = k - 1`` for the last stage:

    - ``"chaudhry"``: ``mean_{j<n} (max_{i<n} acc[i, j] - acc[n, j])`` in [-1, 1]; negative when the last stage is
      better than any before (arXiv:1801.10112, eq. 3). OVOR reports this one.
    - ``"max_incl_last"``: the maximum runs over ``i <= n``, so in [0, 1]. PyCIL, Mammoth, L2P and DualPrompt report it.
    - ``"first_minus_last"``: ``mean_{j<n} (acc[j, j] - acc[n, j])``, minus the backward transfer. Avalanche reports it.
    - ``"one_step"``: ``(1/n) sum_{i=1..n} (1/i) sum_{j<i} (acc[i-1, j] - acc[i, j])``, the mean drop from one stage
      to the next and so several times smaller; CODA-Prompt reports it as ``F_N``.

    Args:
        acc: ``(T, T)``; any unit, the result has the same.
        k: Number of finished tasks; all by default.
        variant: Which of the four.
        from_first_seen: Look for the best value of task ``j`` from stage ``j`` on. False looks at every stage, so
            that the zero-shot accuracy of a task not yet trained counts as knowledge (and an unmeasured one gives
            NaN).
        higher_is_better: False for a matrix of losses or perplexities: a rise is then what was lost.
        has_data: ``(T,)``, False for a task without test samples, which is left out; all count by default.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``variant`` is unknown.
    """
    _check(variant, get_args(ForgettingVariant))
    scores = _scores(acc, k, higher_is_better)
    counted = counted_tasks(has_data, len(finished_block(acc, None)), scores)
    if variant == "one_step":
        return _one_step(scores, counted)
    per_task = task_forgetting(
        acc, k, variant=variant, from_first_seen=from_first_seen, higher_is_better=higher_is_better
    )
    return per_task[counted[:-1]].mean()  # of no old task: NaN


def task_forgetting(
    acc: MatrixLike,
    k: int | None = None,
    *,
    variant: TaskVariant = "chaudhry",
    from_first_seen: bool = True,
    higher_is_better: bool = True,
) -> Tensor:
    """The loss of accuracy on each old task, ``(k - 1,)``; :func:`forgetting` is its mean and explains the arguments.

    ``"one_step"`` has no value per task: it averages over a different set of tasks at every stage.

    Raises:
        ValueError: If ``acc`` is not square, ``k`` is not in ``1..T``, or ``variant`` is unknown or ``"one_step"``.
    """
    _check(variant, get_args(TaskVariant))
    block = _scores(acc, k, higher_is_better)
    if variant == "first_minus_last":
        best = block.diagonal()[:-1]
    else:
        best = _best(block[:-1] if variant == "chaudhry" else block, from_first_seen)
    return best - block[-1, :-1]


def relative_forgetting(
    acc: MatrixLike,
    k: int | None = None,
    *,
    from_first_seen: bool = True,
    has_data: Tensor | Sequence[bool] | None = None,
) -> Tensor:
    """Mean share of the best earlier accuracy that was lost, ``mean_j f_j / max_{i<k-1} acc[i, j]``; at most 1.

    A task whose best earlier accuracy is 0 was never learned and is left out; :func:`never_learned` counts those. NaN
    when none is left. ``has_data`` as in :func:`forgetting`.

    Raises:
        ValueError: If ``acc`` is not square or ``k`` is not in ``1..T``.
    """
    block = finished_block(acc, k)
    best = _best(block[:-1], from_first_seen)
    counted = counted_tasks(has_data, len(finished_block(acc, None)), block)[:-1]
    learned = (best != 0) & counted  # NaN != 0, so an unmeasured task is not hidden
    share = torch.where(learned, (best - block[-1, :-1]) / best, 0)
    return share.sum() / learned.sum()


def never_learned(acc: MatrixLike, k: int | None = None, *, from_first_seen: bool = True) -> int:
    """Number of old tasks with accuracy 0 at every earlier stage, which :func:`relative_forgetting` leaves out.

    Raises:
        ValueError: If ``acc`` is not square or ``k`` is not in ``1..T``.
    """
    return int((_best(finished_block(acc, k)[:-1], from_first_seen) == 0).sum())


def _check(variant: str, known: tuple[str, ...]) -> None:
    if variant not in known:
        raise ValueError(f"`variant` is {variant!r}; give one of {', '.join(map(repr, known))}.")


def _scores(acc: MatrixLike, k: int | None, higher_is_better: bool) -> Tensor:
    block = finished_block(acc, k)
    return block if higher_is_better else -block


def _best(stages: Tensor, from_first_seen: bool) -> Tensor:
    """Best of each old task in ``stages`` (the first ``S`` rows of a ``(k, k)`` block), ``(k - 1,)``; NaN spreads."""
    old = stages[:, :-1]
    if old.numel() == 0:  # one finished task: nothing is old
        return old.new_empty(0)
    if from_first_seen:
        old = torch.where(torch.ones_like(old).tril().bool(), old, -torch.inf)
    return old.amax(dim=0)


def _one_step(block: Tensor, counted: Tensor) -> Tensor:
    if len(block) == 1:
        return undefined(block)
    drops = block[:-1] - block[1:]  # (k-1, k); row i-1 is the step to stage i
    used = torch.ones_like(drops).tril().bool() & counted  # its tasks 0..i-1
    steps = used.any(1)  # a step before which nothing could be measured says nothing
    return (torch.where(used, drops, 0).sum(1) / used.sum(1))[steps].mean()
