"""Measure the mean average precision of streams with several labels a sample, in the validation of every task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.metric_evaluation import stage_of
from lightning_cl.callbacks.evaluation.run_description import (
    RunReporter,
    Written,
    check_validation,
    check_written,
    describe_run,
    validation_sizes,
)
from lightning_cl.callbacks.evaluation.task_counts import grown
from lightning_cl.metrics.functional.multi_label import average_precision, f1_above
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.distributed import all_sum
from lightning_cl.reports import ContinualReport

#: What a stage is summed up by, in the order of the columns of :attr:`MultiLabelEvaluation.summary`.
FIGURES = ("map", "map_all", "cf1", "of1")


class MultiLabelEvaluation(RunReporter):
    """Measures the mean average precision (mAP) after every task, in the validation that the Trainer makes anyway.

    After a task all evaluation images that have one of the classes seen so far are ranked for each of these classes, by
    the logits that leave the head; an image counts once, over all processes. ``map`` is the mean over the classes seen,
    ``map_all`` that over all classes of the stream, where those not seen yet count 0; ``cf1`` and ``of1`` are F1 of
    ``sigmoid(logit) > threshold``, over classes and over all labels. The report's matrix holds in row ``t``, column
    ``j`` the mAP of task ``j``'s classes after task ``t``, where other reports have accuracies, and a note says so.

    It logs ``multi_label/map`` and so on; prints the matrix and writes the report as ``ContinualEvaluation`` does.

    Args:
        threshold: Of F1, in (0, 1); the usual value of the literature.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        report: Write the report files (never with ``Trainer(fast_dev_run=...)``); ``"numbers"``: without pictures,
            which take a third of a short run.
        print_table: Print the matrix and the summary at the end.

    Raises:
        ValueError: If ``threshold`` is out of its range or ``report`` none of these; in ``setup``, without a stream or
            a head, with a source of one label a sample, or where a task's end would not be validated.
    """

    state_key = "lightning_cl.MultiLabelEvaluation"

    def __init__(
        self, threshold: float = 0.8, head: str | None = None, report: Written = True, print_table: bool = True
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"`threshold` is {threshold}; give a probability in (0, 1).")
        self.threshold, self.head, self.print_table = threshold, head, print_table
        self.report = check_written(report)
        #: ``(T, T)`` mAP of a task's classes (column) after a task (row); NaN: not measured.
        self.matrix: Tensor = torch.empty(0, 0)
        #: ``(T, 4)`` ``map``, ``map_all``, ``cf1`` and ``of1`` after each task.
        self.summary: Tensor = torch.empty(0, 4)
        self.samples_seen: list[int] = []
        self._capture: HeadCapture | None = None
        self._scores = self._counted = torch.empty(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the head and check that every boundary will be validated."""
        stream = require_stream(trainer, type(self).__name__)
        if not stream.source.multi_label:
            raise ValueError(
                f"MultiLabelEvaluation ranks samples of several labels, but {type(stream.source).__name__} has one a "
                "sample; use ContinualEvaluation."
            )
        tasks = stream.info.num_tasks
        if stage == "fit":
            check_validation(trainer, stream, type(self).__name__)
        if stage == "fit" or not len(self.matrix):
            self.matrix, self.summary = torch.full((tasks, tasks), torch.nan), torch.full((tasks, 4), torch.nan)
            self.matrix, self.summary, self.samples_seen = self.matrix.double(), self.summary.double(), [0] * tasks
        self._capture = HeadCapture(pl_module, stream.info.num_classes, self.head)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the global batch's samples."""
        stream = require_stream(trainer, type(self).__name__)
        self.samples_seen[stream.task_index] += stream.new_samples(batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to read the head."""
        stream, stage = require_stream(trainer, type(self).__name__), stage_of(trainer)
        assert self._capture is not None
        self._capture.start()
        samples = len(stream.eval_data(stage).labels)
        self._scores = torch.zeros(samples, stream.info.num_classes, device=pl_module.device)
        self._counted = torch.zeros(samples, device=pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the batch's logits."""
        assert self._capture is not None
        index = require_stream(trainer, type(self).__name__).eval_batch(batch_idx, stage_of(trainer)).index
        logits, places = self._capture.take(len(index), batch), index.to(self._scores.device)
        self._scores[places] = logits[:, : self._scores.shape[1]].float().nan_to_num(neginf=0.0)
        self._counted[places] = 1

    on_test_start = on_validation_start

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Keep the batch's logits."""
        self.on_validation_batch_end(*args, **kwargs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fill the row of the current task, and log."""
        stream = require_stream(trainer, type(self).__name__)
        precisions, figures = self._measure(trainer)
        if trainer.sanity_checking:
            return
        stage = stream.task_index
        for task, classes in enumerate(stream.layout.new_classes[: stage + 1]):
            self.matrix[stage, task] = precisions[list(classes)].nanmean()
        self.summary[stage] = figures
        named = zip(FIGURES, figures.tolist(), strict=True)
        pl_module.log_dict({f"multi_label/{name}": value for name, value in named}, batch_size=1)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures of the test split."""
        named = zip(FIGURES, self._measure(trainer)[1].tolist(), strict=True)
        pl_module.log_dict({f"test/multi_label/{name}": value for name, value in named}, batch_size=1)

    def _measure(self, trainer: Trainer) -> tuple[Tensor, Tensor]:
        """``(C,)`` average precisions, NaN for a class that is not seen or has no image; and the four figures."""
        stream = require_stream(trainer, type(self).__name__)
        assert self._capture is not None
        self._capture.stop()
        scores, rows = all_sum(self._scores).cpu(), all_sum(self._counted).cpu() > 0
        sets = stream.source.targets(stream.eval_data(stage_of(trainer)).split)[rows]
        seen, every = list(stream.exposed_classes), torch.full((stream.info.num_classes,), torch.nan).double()
        every[seen] = average_precision(scores[rows][:, seen], sets[:, seen])
        f1 = f1_above(scores[rows][:, seen], sets[:, seen], self.threshold)
        return every, torch.stack([every.nanmean(), every.nan_to_num(0.0).mean(), *f1])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report and print the table."""
        if trainer.is_global_zero:
            self.publish(trainer, self.build_report(trainer, pl_module))

    def report_facts(self) -> dict[str, Any]:
        """The figures after each task, their last and their mean over tasks, as shares."""
        done = self.summary[~self.summary[:, 0].isnan()]
        if not len(done):
            return {}
        after = {f"{name}_after_task": column.tolist() for name, column in zip(FIGURES, done.T, strict=True)}
        return {"last_map": float(done[-1, 0]), "average_map": float(done[:, 0].mean()), **after}

    def build_report(self, trainer: Trainer, pl_module: LightningModule, note: str | None = None) -> ContinualReport:
        """What was measured so far and what is needed to judge it."""
        stream = require_stream(trainer, type(self).__name__)
        described = describe_run(trainer, pl_module, stream, note)
        described["notes"] += ["the matrix holds mean average precisions of a task's classes, not accuracies"]
        sizes, seen = validation_sizes(stream), list(self.samples_seen)
        return ContinualReport(class_il=self.matrix, sizes=sizes, samples_seen=seen, **described)

    def state_dict(self) -> dict[str, Any]:
        """What was measured, the same on all processes."""
        return {"version": 1, "matrix": self.matrix, "summary": self.summary, "samples_seen": self.samples_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a matrix."""
        tasks = len(self.matrix)  # more than saved when the stream was extended
        self.matrix = grown(state_dict["matrix"].cpu(), tasks, float("nan"))
        summary = state_dict["summary"].cpu()
        self.summary = torch.cat([summary, torch.full((tasks - len(summary), 4), torch.nan).double()])
        self.samples_seen = grown(torch.tensor(state_dict["samples_seen"], dtype=torch.long), tasks).tolist()
