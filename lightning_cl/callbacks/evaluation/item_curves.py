"""Follow every evaluation sample through a run: when it was learned, lost and learned again."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.callbacks.checkpoints.run_folder import run_folder
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.module_answers import refuse_regression, returned_answers
from lightning_cl.callbacks.label_kinds import check_single_label
from lightning_cl.metrics.functional.item_curves import (
    NOT_EVALUATED,
    class_curves,
    forgetting_rate,
    item_times,
    retention,
)
from lightning_cl.metrics.functional.predictions import class_il_predictions, class_table
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.reports.files import to_csv, write_files, write_text

FILE_NAME = "item_curves.csv"


class ItemCurves(ContinualCallback):
    """Follows single samples and classes through the validations that the Trainer makes anyway.

    Of every validation it keeps one byte for each evaluation sample: whether the answer among the classes seen was
    right, or that the sample was not looked at. From these it tells, in the report's ``facts``, how many samples were
    never learned, kept, lost and learned again; the share still right by the number of validations since a sample was
    learned, with the rate ``a`` of ``1 - a ln t``; and each class's accuracy over time, with the validations at which
    it was first right for most of its samples, lost, and right again. ``item_curves.csv`` in the run's folder has a
    line for each sample. Accuracy may stay where it is while other samples are known than before: here it shows. A step
    of training costs nothing; what is learned does not change. The report is that of ``ContinualEvaluation``.

    Args:
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        report: Write ``item_curves.csv`` (never with ``Trainer(fast_dev_run=...)``).

    Raises:
        ValueError: In ``setup``, without a stream or a head.
    """

    state_key = "lightning_cl.ItemCurves"

    def __init__(self, head: str | None = None, report: bool = True) -> None:
        self.head, self.report = head, report
        #: ``(E, N_split)`` uint8: 1 right, 0 wrong, 255 not evaluated; a row for each validation.
        self.answers = torch.empty(0, 0, dtype=torch.uint8)
        #: Training batches before each validation.
        self.batches: list[int] = []
        self._labels, self._names = torch.empty(0, dtype=torch.long), tuple[str, ...]()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the head, and begin with nothing; a checkpoint's answers are put in place afterwards."""
        stream = require_stream(trainer, type(self).__name__)
        check_single_label(stream, type(self).__name__)
        self._capture = HeadCapture(pl_module, stream.info.num_classes, self.head)
        self._labels, self._names = stream.eval_data("val").labels, stream.info.class_names
        if stage == "fit":
            self.answers, self.batches = torch.empty(0, len(self._labels), dtype=torch.uint8), []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a row."""
        stream = require_stream(trainer, type(self).__name__)
        self._capture.start()
        columns = self._capture.layer.out_features
        self._seen = class_table([stream.exposed_classes], columns, pl_module.device)[0]
        self._row = torch.zeros(2, len(self._labels), dtype=torch.int32, device=pl_module.device)  # looked at, right

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Refuse what has no right answers."""
        if batch_idx == 0:
            refuse_regression(batch, type(self).__name__)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Note which samples of a batch are answered right."""
        samples = require_stream(trainer, type(self).__name__).eval_batch(batch_idx, "val")
        count = len(samples.labels)
        logits = self._capture.take(count, batch)
        given = returned_answers(outputs, count, logits.shape[1], self._capture.order)
        scores = logits if given is None or given.ndim == 1 else given
        chosen = given if given is not None and given.ndim == 1 else class_il_predictions(scores, self._seen)
        index, labels = (t.to(logits.device, non_blocking=True) for t in (samples.index, samples.labels))
        self._row[0, index] = 1
        self._row[1, index] = (chosen.to(labels) == labels).int()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the row, of all processes together."""
        self._capture.stop()
        row: Tensor = trainer.strategy.reduce(self._row, reduce_op="sum").cpu()
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        kept = torch.where(row[0] > 0, row[1].clamp(max=1), NOT_EVALUATED).to(torch.uint8)
        self.answers = torch.cat([self.answers, kept[None]])
        self.batches.append(trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the line of each sample."""
        if self.report and trainer.is_global_zero and not trainer.fast_dev_run and len(self.answers):  # type: ignore[attr-defined]
            text = partial(write_text, text=to_csv(self.lines()))
            write_files(run_folder(trainer), {FILE_NAME: text}, [FILE_NAME], keep_previous=True)

    def lines(self) -> list[list[Any]]:
        """A header, and for each sample that was evaluated its place, class, and what happened when."""
        times = item_times(self.answers)
        columns = [times.learned, times.lost, times.relearned, times.losses, times.kept.long()]
        looked = (self.answers != NOT_EVALUATED).any(0).nonzero().flatten().tolist()
        head = ["sample", "class", "learned", "lost", "relearned", "losses", "kept"]
        rows = torch.stack(columns, 1).tolist()
        return [head, *([place, self._names[int(self._labels[place])], *rows[place]] for place in looked)]

    def report_facts(self) -> dict[str, Any]:
        """Counts of samples, retention by age, and the curve of each class; see the class."""
        if not len(self.answers):
            return {}
        times, share = item_times(self.answers), retention(self.answers)
        looked = (self.answers != NOT_EVALUATED).any(0)
        curves = class_curves(self.answers, self._labels, len(self._names))
        most = torch.where(curves.isnan(), NOT_EVALUATED, (curves >= 0.5).double()).to(torch.uint8)
        of_class = item_times(most)
        return {
            "evaluations": self.batches,
            "samples": int(looked.sum()),
            "never_learned": int((looked & (times.learned < 0)).sum()),
            "never_lost": int(((times.learned >= 0) & (times.lost < 0)).sum()),
            "lost": int((times.lost >= 0).sum()),
            "relearned": int((times.relearned >= 0).sum()),
            "lost_at_the_end": int(((times.learned >= 0) & ~times.kept).sum()),
            "losses_per_sample": float(times.losses[looked].double().mean()),
            "retention": share.tolist(),
            "forgetting_rate": forgetting_rate(share),
            "class_accuracy": curves.T.tolist(),
            "classes": {
                name: dict(zip(("learned", "lost", "relearned"), times_of, strict=True))
                for name, times_of in zip(self._names, torch.stack(of_class[:3], 1).tolist(), strict=True)
            },
        }

    def state_dict(self) -> dict[str, Any]:
        """A byte for each sample and validation so far."""
        return {"version": 1, "answers": self.answers.clone(), "batches": list(self.batches)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on; samples of a stream that was extended since were not evaluated before."""
        answers = state_dict["answers"].cpu()
        missing = max(len(self._labels) - answers.shape[1], 0)
        self.answers = torch.nn.functional.pad(answers, (0, missing), value=NOT_EVALUATED)
        self.batches = list(state_dict["batches"])
