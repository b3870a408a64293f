"""What must not change a prediction: the size, order and company of a batch, labels, the claimed task, time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_cl.callbacks.evaluation.protocol_checks import Difference, Tolerance, compare, judge
from lightning_cl.callbacks.evaluation.protocol_probe import Probe, by_task, claiming, in_batches
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.reports.protocol import Check

_FEW = 7  # samples of a small batch: no divisor of the usual batch sizes


def prediction_checks(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Iterator[Check]:
    """All checks of predictions.

    Args:
        probe: The samples.
        expected: ``(N, C)`` logits of its rows in order, in full batches.
        tolerance: What may differ by rounding.
    """
    rows, full = probe.rows, in_batches(probe.rows, probe.full)

    def measure(batches: Sequence[Tensor], **options: Any) -> Difference:
        return compare(expected, probe.logits(batches, **options), tolerance)

    def verdict(name: str, difference: Difference, compared: str, remedy: str) -> Check:
        return judge(name, difference, tolerance, f"{len(rows)} samples {compared}", remedy)

    yield _sizes(probe, expected, tolerance)
    yield verdict(
        "batch order",
        measure([batch.flip(0) for batch in full]),
        "in order and in reverse",
        "something depends on a sample's place in the batch; no sorting, cumulative sum or index within the batch "
        "may reach the logits.",
    )
    yield _mates(probe, expected, tolerance)
    yield _claimed(probe, expected, tolerance)
    yield verdict(
        "labels",
        measure(full, mislabelled=True),
        "with their own labels and with those of others",
        "the module looks at labels or task ids of the evaluation batch, which are not known at test time.",
    )
    yield verdict(
        "repetition",
        measure(full, later=True),
        "evaluated twice",
        "the evaluation is random or changes itself; use evaluation transforms without randomness, and no dropout "
        "or update in eval mode.",
    )
    yield _remembered(probe, expected, tolerance)


def _sizes(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Check:
    name, few = "batch size", min(_FEW, len(probe.rows))
    compared = f"{len(probe.rows)} samples in batches of 1, {few} and {probe.full}"
    try:
        found = [compare(expected, probe.logits(in_batches(probe.rows, size)), tolerance) for size in (1, few)]
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        broken = f"the module cannot evaluate every size of batch ({type(error).__name__}: {error}); "
        return Check(name, "fail", compared, broken + "let it take batches of one sample too.")
    worst = max(found, key=lambda difference: (difference.moved, difference.largest))
    remedy = (
        "a sample's prediction uses its batch mates, and test batches of one task tell the task; make no use of "
        "batch statistics or of a vote over the batch in evaluation."
    )
    if _votes(probe.pl_module):
        return _voted(worst, compared)
    return judge(name, worst, tolerance, compared, remedy)


def _mates(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Check:
    name = "batch mates"
    if len(probe.tasks.unique()) == 1:
        return Check(name, "not checked", message="only one task has been seen")
    difference = compare(expected, probe.logits(by_task(probe.tasks, probe.full)), tolerance)
    remedy = (
        "batches of one task give other predictions than mixed ones, so the batch tells the task; choose prompts, "
        "experts and statistics for each sample by itself."
    )
    compared = f"{len(probe.rows)} samples with others of their task and mixed with other tasks"
    return judge(name, difference, tolerance, compared, remedy)


def _claimed(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Check:
    name, tasks, current = "claimed task", probe.stream.info.num_tasks, probe.stream.task_index
    if tasks == 1:
        return Check(name, "not checked", message="the stream has only one task")
    other = current - 1 if current else 1
    with claiming(probe.trainer, probe.stream, other):
        actual = probe.logits(in_batches(probe.rows, probe.full))
    remedy = (
        f"the module reads the current task (or epoch) while it evaluates: with task {other} claimed it answers "
        "otherwise. At test time no task is told; keep what was learned in buffers, and take the classes seen so "
        "far from `stream.exposed_classes`."
    )
    compared = f"{len(probe.rows)} samples, the stream claiming another task than it is in"
    return judge(name, compare(expected, actual, tolerance), tolerance, compared, remedy)


def _remembered(probe: Probe, expected: Tensor, tolerance: Tolerance) -> Check:
    name = "remembered features"
    hook = getattr(type(probe.pl_module), "expect_images", None)
    if hook is None or hook is ContinualMixin.expect_images:
        return Check(name, "not checked", message="nothing remembers features")
    actual, rows = probe.remembered()
    remedy = (
        "the remembered features are not those of the images any more; use evaluation transforms without "
        "randomness and a frozen backbone, or turn the memory off (`cache_queries=False`, `cache_features=False`)."
    )
    compared = f"{len(probe.rows)} samples with fresh and with remembered features"
    return judge(name, compare(expected[rows], actual, tolerance), tolerance, compared, remedy)


def _votes(pl_module: nn.Module) -> bool:
    return any(getattr(part, "batch_dependent", False) is True for part in pl_module.modules())


def _voted(difference: Difference, compared: str) -> Check:
    """A method that says so violates the protocol, whether or not all samples of the probe happened to agree."""
    found = (
        f"prompts are chosen by a vote over the batch; it changes the logits of {difference.moved} of "
        f"{difference.samples} samples here, {difference.changed} of them to another class, and where test batches "
        'are of one task it tells the task; use `batch_vote="never"` or "train".'
    )
    return Check("batch size", "fail", compared, found, difference.numbers())
