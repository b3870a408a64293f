"""All numbers of a run by name, from its accuracy matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from lightning_cl.metrics.functional._matrix import MatrixLike, RowLike, finished_stages
from lightning_cl.metrics.functional.accuracy import (
    average_accuracy,
    average_incremental_accuracy,
    knowledge_rate,
    learning_accuracy,
)
from lightning_cl.metrics.functional.adaptation import adaptation_summary
from lightning_cl.metrics.functional.forgetting import forgetting, relative_forgetting
from lightning_cl.metrics.functional.fscil import session_summary
from lightning_cl.metrics.functional.transfer import backward_transfer, forward_transfer
from lightning_cl.metrics.functional.unlearning import forget_summary

DEFINITIONS = {
    "average_accuracy": "mean accuracy over the seen tasks that have test samples, after the last task (ACC, A_T)",
    "average_accuracy_micro": "accuracy over the test samples of all tasks seen so far, after the last task",
    "average_incremental_accuracy": "mean of average_accuracy over all stages, the first included (AIA)",
    "average_incremental_accuracy_micro": "mean of average_accuracy_micro over all stages, the first included",
    "learning_accuracy": "mean accuracy on each task just after it was learned (LA)",
    "backward_transfer": "mean over old tasks of final accuracy minus accuracy just after learning (BWT, GEM)",
    "forgetting": "mean over old tasks of best accuracy before the last stage minus final accuracy (Chaudhry et al.)",
    "forgetting_max_incl_last": "mean over old tasks of best accuracy, last stage included, minus final accuracy",
    "forgetting_one_step": "mean drop of old tasks from one stage to the next (F_N of CODA-Prompt)",
    "relative_forgetting": "mean over old tasks of forgetting divided by the best accuracy before the last stage",
    "knowledge_rate": "average_accuracy after the last task divided by that after the first (KR)",
    "knowledge_rate_micro": "average_accuracy_micro after the last task divided by that after the first",
    "forward_transfer": "mean over later tasks of accuracy just before learning minus that of an untrained model (FWT)",
}
"""What each metric of :func:`summarise` is, without the label space before the slash.

A task without test samples (none of its classes is new) has no accuracy and counts in no mean over tasks.
"""
FEW_SHOT_DEFINITIONS = {
    "average_session_accuracy": "mean over the sessions, base included, of accuracy over all test samples seen so far",
    "performance_drop": "accuracy after the base session minus accuracy after the last one (PD)",
    "base_accuracy": "accuracy on the classes of the base session after the last session",
    "novel_accuracy": "accuracy on all other classes after the last session",
    "harmonic_mean": "harmonic mean of base_accuracy and novel_accuracy",
    "average_harmonic_mean": "mean of the harmonic means after every session but the base session",
}
"""What the metrics ``few_shot/...`` of :func:`summarise` are; test samples are pooled."""
FORGET_DEFINITIONS = {
    "forget_accuracy": "accuracy on what the last request asked to forget, after its task",
    "forget_drop": "accuracy on what the last request asked to forget, before its task minus after it",
    "forgotten_accuracy": "accuracy over all that the requests so far asked to forget, after the last one",
    "retain_accuracy": "accuracy over all else, after the last request",
    "h_mean": "harmonic mean of forget_drop and retain_accuracy (H, GS-LoRA)",
    "average_h_mean": "mean of the harmonic means after every request",
}
"""What the metrics ``forget/...`` of :func:`summarise` are; test samples are pooled."""
ADAPTATION_DEFINITIONS = {
    "accuracy_before": "mean over the unlabelled domains of accuracy before any adaptation",
    "accuracy_after": "mean over the unlabelled domains of accuracy just after the model has adapted to them",
    "accuracy_gain": "accuracy_after minus accuracy_before",
    "accuracy_at_end": "mean over the unlabelled domains of accuracy after the last adaptation",
}
"""What the metrics ``adaptation/...`` of :func:`summarise` are."""
LEVEL_DEFINITIONS = {
    "level_accuracy": "accuracy at this level of the label tree over all test samples, after the last stage",
    "average_level_accuracy": "mean of level_accuracy over the stages that have samples of this level",
}
"""What the metrics ``level_0/...`` (the coarsest), ``level_1/...`` and so on of :func:`summarise` are."""
ALL_DEFINITIONS = {
    **DEFINITIONS,
    **FEW_SHOT_DEFINITIONS,
    **FORGET_DEFINITIONS,
    **ADAPTATION_DEFINITIONS,
    **LEVEL_DEFINITIONS,
}


def summarise(
    class_il: MatrixLike | None,
    task_il: MatrixLike | None = None,
    sizes: RowLike | None = None,
    baseline: RowLike | None = None,
    few_shot: bool = False,
    requests: int = 0,
    unlabelled: Sequence[int] = (),
    names: Sequence[str] | None = None,
    levels: Tensor | None = None,
) -> dict[str, float | None]:
    """Every metric of :data:`DEFINITIONS` for each label space, as fractions, after the last stage that was measured.

    Args:
        class_il: ``(T, T)`` accuracies in [0, 1] with all classes seen so far to choose from.
        task_il: ``(T, T)`` accuracies in [0, 1] with the classes of each sample's task to choose from.
        sizes: ``(T,)`` test samples of each task; without it the micro averages are None. A task with 0 is left out of
            all means over tasks.
        baseline: ``(T,)`` accuracies before any training, in the label space of ``task_il`` or, if that is not given,
            of ``class_il``: forward transfer is given for that one only.
        few_shot: Also give those of :data:`FEW_SHOT_DEFINITIONS`; task 0 is the base session.
        requests: How many of the tasks, the last ones, ask to forget something; with any, also give those of
            :data:`FORGET_DEFINITIONS`.
        unlabelled: Tasks without labels; with any, also give those of :data:`ADAPTATION_DEFINITIONS`.
        names: Only these of :data:`DEFINITIONS`; all by default.
        levels: ``(T, L)`` accuracies at the levels of a label tree after each stage, NaN: not measured; with them, also
            give those of :data:`LEVEL_DEFINITIONS`.

    Returns:
        ``{"class_il/average_accuracy": 0.81, ...}``, the names always the same for the same arguments; None is "not
        defined" (a single task) or "not measured".

    Raises:
        ValueError: If a matrix is not square or a row has not one value for each task.
    """
    transfer_space = "class_il" if task_il is None else "task_il"
    metrics: dict[str, float | None] = {}
    for space, acc in (("class_il", class_il), ("task_il", task_il)):
        if acc is not None:
            measures = _measures(acc, sizes, baseline if space == transfer_space else None)
            values = {name: _number(measures[name]()) for name in measures if names is None or name in names}
            metrics.update({f"{space}/{name}": value for name, value in values.items()})
    if class_il is not None and sizes is not None:
        if few_shot:
            metrics |= _further("few_shot", FEW_SHOT_DEFINITIONS, class_il, partial(session_summary, sizes=sizes))
        if requests:
            metrics |= _further(
                "forget", FORGET_DEFINITIONS, class_il, partial(forget_summary, requests=requests, sizes=sizes)
            )
    if unlabelled and class_il is not None:
        # Of a model that knows all classes, for which both label spaces are one.
        summary = partial(adaptation_summary, unlabelled=unlabelled, baseline=baseline)
        metrics |= _further("adaptation", ADAPTATION_DEFINITIONS, class_il, summary)
    for level, measured in enumerate(() if levels is None else levels.double().T):
        known = measured[~measured.isnan()]
        last, mean = (known[-1], known.mean()) if len(known) else (None, None)
        metrics[f"level_{level}/level_accuracy"] = None if last is None else _number(last)
        metrics[f"level_{level}/average_level_accuracy"] = None if mean is None else _number(mean)
    return metrics


def _further(
    space: str, names: Iterable[str], acc: MatrixLike, summary: Callable[..., dict[str, Tensor]]
) -> dict[str, float | None]:
    """Metrics of a kind of stream, after the last stage that was measured."""
    k = finished_stages(acc)
    values = {name: _number(value) for name, value in summary(acc, k).items()} if k else {}
    return {f"{space}/{name}": values.get(name) for name in names}


def _measures(
    acc: MatrixLike, sizes: RowLike | None, baseline: RowLike | None
) -> dict[str, Callable[[], Tensor | None]]:
    """How each metric is computed, in the order of :data:`DEFINITIONS`; not yet computed, since only some may be."""
    names = [name for name in DEFINITIONS if name != "forward_transfer" or baseline is not None]
    k = finished_stages(acc)
    if k == 0:
        return dict.fromkeys(names, lambda: None)
    has_data = None if sizes is None else torch.as_tensor(sizes) > 0
    known: dict[str, Callable[[], Tensor | None]] = {
        "average_accuracy": partial(average_accuracy, acc, k, sizes=has_data),
        "average_incremental_accuracy": partial(average_incremental_accuracy, acc, k, sizes=has_data),
        "learning_accuracy": partial(learning_accuracy, acc, k, has_data=has_data),
        "backward_transfer": partial(backward_transfer, acc, k, has_data=has_data),
        "forgetting": partial(forgetting, acc, k, has_data=has_data),
        "forgetting_max_incl_last": partial(forgetting, acc, k, variant="max_incl_last", has_data=has_data),
        "forgetting_one_step": partial(forgetting, acc, k, variant="one_step", has_data=has_data),
        "relative_forgetting": partial(relative_forgetting, acc, k, has_data=has_data),
        "knowledge_rate": partial(knowledge_rate, acc, k, sizes=has_data),
    }
    if sizes is not None:
        known["average_accuracy_micro"] = partial(average_accuracy, acc, k, sizes=sizes)
        known["average_incremental_accuracy_micro"] = partial(average_incremental_accuracy, acc, k, sizes=sizes)
        known["knowledge_rate_micro"] = partial(knowledge_rate, acc, k, sizes=sizes)
    if baseline is not None:
        known["forward_transfer"] = partial(forward_transfer, acc, baseline, k, has_data=has_data)
    return {name: known.get(name, lambda: None) for name in names}


def _number(value: Tensor | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
