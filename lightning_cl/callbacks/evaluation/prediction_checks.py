"""Check that a prediction depends on its sample alone: not on its batch, labels, the claimed task, or time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lightning_cl.callbacks.evaluation.protocol_checks import Difference, Tolerance, compare, judge
from lightning_cl.callbacks.evaluation.protocol_probe import Probe, by_task, claiming, in_batches
from lightning_cl.callbacks.evaluation.task_identity import TOLD
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.reports.protocol import Check, Result, verdict
from lightning_cl.training import MethodModule

_FEW = 7  # samples of a small batch: no divisor of the usual batch sizes
#: What is wrong and how to repair it, by check.
_REMEDIES = {
    "batch size": "a sample's prediction uses its batch mates, and test batches of one task tell the task; make no use "
    "of batch statistics or of a vote over the batch in evaluation.",
    "batch order": "something depends on a sample's place in the batch; no sorting, cumulative sum or index within the "
    "batch may reach the logits.",
    "batch mates": "batches of one task give other predictions than mixed ones, so the batch tells the task; choose "
    "prompts, experts and statistics for each sample by itself.",
    "claimed task": "the module reads the current task (or epoch) while it evaluates: with task {task} claimed it "
    "answers otherwise. At test time no task is told; keep what was learned in buffers, and take the classes seen so "
    "far from `stream.exposed_classes`.",
    "labels": "the module looks at labels or task ids of the evaluation batch, which are not known at test time.",
    "repetition": "the evaluation is random or changes itself; use evaluation transforms without randomness, and no "
    "dropout or update in eval mode.",
    "remembered features": "the remembered features are not those of the images any more; use evaluation transforms "
    "without randomness and a frozen backbone, or turn the memory off (`cache_queries=False`, `cache_features=False`).",
}


def prediction_checks(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Iterator[Check]:
    """All checks of predictions.

    Args:
        probe: The samples.
        expected: ``(N, C)`` logits of its rows in order, in full batches.
        tolerance: What may differ by rounding.
    """
    full, count = in_batches(probe.rows, probe.full), f"{len(probe.rows)} samples"

    def judged(name: str, compared: str, actual: Tensor, wanted: Tensor = expected, task: int = 0) -> Check:
        remedy = _REMEDIES[name].format(task=task)
        return judge(name, compare(wanted, actual, tolerance), tolerance, count + compared, remedy)

    yield _sizes(probe, expected, tolerance)
    yield judged("batch order", " in order and in reverse", probe.logits([batch.flip(0) for batch in full]))
    if probe.told:
        yield Check("batch mates", "not checked", message=TOLD)
    elif len(probe.tasks.unique()) == 1:
        yield Check("batch mates", "not checked", message="only one task has been seen")
    else:
        compared = " with others of their task and mixed with other tasks"
        yield judged("batch mates", compared, probe.logits(by_task(probe.tasks, probe.full)))
    identity: Result = "not checked" if probe.told else "pass"
    yield Check("task identity", identity, "what methods ask for", TOLD if probe.told else "")
    if probe.stream.info.num_tasks == 1:
        yield Check("claimed task", "not checked", message="the stream has only one task")
    else:
        other = abs(probe.stream.task_index - 1)  # the one before; for the first the second
        with claiming(probe.trainer, probe.stream, other):
            actual = probe.logits(full)
        yield judged("claimed task", ", the stream claiming another task than it is in", actual, task=other)
    yield judged("labels", " with their own labels and with those of others", probe.logits(full, mislabelled=True))
    yield judged("repetition", " evaluated twice", probe.logits(full, later=True))
    if not _remembers(probe.pl_module):
        yield Check("remembered features", "not checked", message="nothing remembers features")
    else:
        actual, rows = probe.remembered()
        yield judged("remembered features", " with fresh and with remembered features", actual, expected[rows])


def _remembers(module: Any) -> bool:
    """Whether a mixin or a method's module is told which samples are evaluated next."""
    hook, state = getattr(type(module), "expect_images", None), getattr(module, "continual", None)
    parts = () if hook is None or state is None else state.ordered_parts
    told = any(type(part).expect_samples is not MethodModule.expect_samples for part in parts)
    return told or hook not in (None, ContinualMixin.expect_images)


def _sizes(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Check:
    name, few = "batch size", min(_FEW, len(probe.rows))
    compared = f"{len(probe.rows)} samples in batches of 1, {few} and {probe.full}"
    try:
        found = [compare(expected, probe.logits(in_batches(probe.rows, size)), tolerance) for size in (1, few)]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        broken = f"the module cannot evaluate every size of batch ({type(error).__name__}: {error}); "
        return verdict(name, compared, broken + "let it take batches of one sample too.")
    worst = max(found, key=lambda difference: (difference.moved, difference.largest))
    if any(getattr(part, "batch_dependent", False) is True for part in probe.pl_module.modules()):
        return _voted(worst, compared)
    return judge(name, worst, tolerance, compared, _REMEDIES[name])


def _voted(difference: Difference, compared: str) -> Check:
    """A method that says so violates the protocol, whether or not all samples of the probe happened to agree."""
    found = (
        f"prompts are chosen by a vote over the batch; it changes the logits of {difference.moved} of "
        f"{difference.samples} samples here, {difference.changed} of them to another class, and where test batches "
        'are of one task it tells the task; use `batch_vote="never"` or "train".'
    )
    return verdict("batch size", compared, found, difference.numbers())
