"""The numbers of a run from a matrix of any metric, of which higher or lower values may be the better ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, finished_stages, to_float64
from lightning_cl.metrics.functional.accuracy import (
    average_accuracy,
    average_incremental_accuracy,
    learning_accuracy,
)
from lightning_cl.metrics.functional.forgetting import forgetting, relative_forgetting
from lightning_cl.metrics.functional.transfer import backward_transfer, forward_transfer


def metric_definitions(higher_is_better: bool) -> dict[str, str]:
    """What each number of :func:`summarise_metric` is, without the metric's name before the slash."""
    best, loss = ("best", "minus final") if higher_is_better else ("lowest", "taken from the final")
    sign = "" if higher_is_better else ", the sign turned, so that negative is worse"
    return {
        "average_value": "mean over the seen tasks that have test samples, after the last task",
        "average_incremental_value": "mean of average_value over all stages, the first included",
        "learning_value": "mean over tasks of the value just after each was learned",
        "backward_transfer": f"mean over old tasks of final value minus that just after learning{sign}",
        "forgetting": f"mean over old tasks of {best} value before the last stage {loss}; positive is worse",
        "forgetting_max_incl_last": f"mean over old tasks of {best} value, last stage included, {loss}",
        "forgetting_one_step": "mean loss of old tasks from one stage to the next",
        "relative_forgetting": f"mean over old tasks of forgetting divided by the {best} value before the last stage",
        "forward_transfer": f"mean over later tasks of value just before learning minus that untrained{sign}",
    }


def summarise_metric(
    matrix: MatrixLike,
    higher_is_better: bool,
    sizes: RowLike | None = None,
    baseline: RowLike | None = None,
) -> dict[str, float | None]:
    """Every number of :func:`metric_definitions`, in the metric's own unit, after the last stage that was measured.

    Forgetting is positive and backward transfer negative where a task became worse, whatever the direction.

    Args:
        matrix: ``(T, T)``; ``matrix[i, j]`` is the metric on task ``j`` after training task ``i``, NaN: not measured.
        higher_is_better: ``False`` for errors, losses and perplexities.
        sizes: ``(T,)`` test samples of each task; one with 0 is left out of all means over tasks.
        baseline: ``(T,)`` values before any training; without it there is no forward transfer.

    Returns:
        ``{"average_value": 0.3, ...}``, the names always the same for the same arguments; ``None``: not defined (a
        single task) or not measured.

    Raises:
        ValueError: If the matrix is not square or a row has not one value for each task.
    """
    names = [
        name for name in metric_definitions(higher_is_better) if name != "forward_transfer" or baseline is not None
    ]
    k = finished_stages(matrix)
    if k == 0:
        return dict.fromkeys(names)
    values, better = to_float64(matrix), higher_is_better
    used = None if sizes is None else torch.as_tensor(sizes) > 0
    ratio = relative_forgetting(values if better else -values, k, has_data=used)
    found: dict[str, Tensor] = {
        "average_value": average_accuracy(values, k, sizes=used),
        "average_incremental_value": average_incremental_accuracy(values, k, sizes=used),
        "learning_value": learning_accuracy(values, k, has_data=used),
        "backward_transfer": backward_transfer(values, k, higher_is_better=better, has_data=used),
        "forgetting": forgetting(values, k, higher_is_better=better, has_data=used),
        "forgetting_max_incl_last": forgetting(
            values, k, variant="max_incl_last", higher_is_better=better, has_data=used
        ),
        "forgetting_one_step": forgetting(values, k, variant="one_step", higher_is_better=better, has_data=used),
        "relative_forgetting": ratio if better else -ratio,
    }
    if baseline is not None:
        found["forward_transfer"] = forward_transfer(values, baseline, k, higher_is_better=better, has_data=used)
    return {name: None if math.isnan(found[name]) else float(found[name]) for name in names}
