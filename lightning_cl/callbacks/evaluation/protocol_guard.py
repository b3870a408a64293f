"""Check the evaluation protocol with a cheap probe at every task boundary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.callbacks.evaluation import data_checks
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.module_answers import AnswerCheck
from lightning_cl.callbacks.evaluation.prediction_checks import prediction_checks
from lightning_cl.callbacks.evaluation.protocol_checks import Tolerance, unseen_classes, unseen_rows
from lightning_cl.callbacks.evaluation.protocol_probe import Probe, in_batches
from lightning_cl.callbacks.evaluation.side_effects import fingerprints, generators_moved, moved_names, row_fingerprints
from lightning_cl.datamodules import ContinualDataModule, Task
from lightning_cl.datamodules.resume import random_states
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import LightningModule, Trainer, rank_zero_warn
from lightning_cl.reports.protocol import Check, ProtocolCard, ProtocolError, Result, verdict
from lightning_cl.reports.tables import print_table, protocol_table


class ProtocolGuard(ContinualCallback):
    """Checks after every task that the accuracies mean what they say, and writes a protocol card into the report.

    A few evaluation samples are passed through the module's own ``validation_step`` in batches of every kind: one by
    one, in reverse, task by task, with the labels of others, with another task claimed. Predictions must stay the
    same. It also looks at classes and rows of the head that nobody has seen, at what a validation changes (weights,
    buffers, random numbers), at who chooses by results on the test split, and at evaluation images among the training
    images. All of it is measured, so a method need not confess. The checks are those of
    :data:`lightning_cl.reports.protocol.CHECKS`.

    A run with the guard ends in the same bits as one without. The cost is about nine passes over ``probe`` samples a
    task, whatever the number of tasks, and reading the images for the search for copies once.

    Args:
        on_violation: ``"warn"``, or ``"error"``: stop the run with a :class:`ProtocolError`.
        probe: Evaluation samples to look at after each task.
        duplicates: Images of each split to compare at most; 0: none.
        tuned_on: In your words, for the card: what the hyperparameters were chosen on. No run can see it.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        print_card: Print the card at the end.

    Raises:
        ValueError: For an unknown ``on_violation``, or a ``probe`` of less than 2; in ``setup``, when there is no
            stream, no head, or no validation.
        ProtocolError: At a task's end with ``on_violation="error"``.
    """

    state_key = "lightning_cl.ProtocolGuard"

    def __init__(
        self,
        on_violation: Literal["warn", "error"] = "warn",
        probe: int = 64,
        duplicates: int = 512,
        tuned_on: str | None = None,
        head: str | None = None,
        print_card: bool = True,
    ) -> None:
        if on_violation not in ("warn", "error"):
            raise ValueError(f'`on_violation` is {on_violation!r}; give "warn" or "error".')
        for name, value, least in (("probe", probe, 2), ("duplicates", duplicates, 0)):
            if value < least:
                raise ValueError(f"`{name}` is {value}; give a number of samples of at least {least}.")
        self.on_violation, self.probe, self.duplicates = on_violation, probe, duplicates
        self.tuned_on, self.head, self.print_card = tuned_on, head, print_card
        #: What was found so far.
        self.card = ProtocolCard()
        self._capture: HeadCapture | None = None
        self._ended = self._checked = -1  # tasks
        self._rows: tuple[int, Tensor] | None = None  # task, fingerprints of the head's rows at its start
        self._before: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the head, and check that there is a validation to look at."""
        stream = require_stream(trainer, type(self).__name__)
        if stage == "fit":
            if not trainer.enable_validation:
                raise ValueError(
                    "ProtocolGuard looks at the validation, but there is none; give the module a `validation_step` "
                    "(calling the model is enough) and leave `limit_val_batches` above 0."
                )
            self.card, self._ended, self._checked, self._rows = ProtocolCard(), -1, -1, None
        self._capture = HeadCapture(pl_module, stream.info.num_classes, self.head)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for evaluation samples in the training data, once."""
        if not any(check.name == "overlap" for check in self.card.checks):
            stream = require_stream(trainer, type(self).__name__)
            found = [data_checks.overlap(stream), data_checks.tuning(self.tuned_on)]
            if not stream.info.unlabelled_tasks:
                found.append(Check("hidden labels", "not checked", message="every task has labels"))
            if trainer.is_global_zero:  # images are read on one process only
                found.append(data_checks.duplicates(stream, self.duplicates))
            self._add(trainer, found, "before training")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the head's rows at the task's first batch, and look whether it tells labels that it must not."""
        stream = require_stream(trainer, type(self).__name__)
        task = stream.task_index
        if self._rows is None or self._rows[0] != task:
            self._rows = task, self._row_fingerprints()
            if not stream.task.labelled:
                own = stream.train_batch(batch_idx)
                labels = stream.source.train_labels[own.index]
                self._add(
                    trainer, [data_checks.hidden_labels(batch, labels, f"task {task}").after(task)], "in training"
                )

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """The next validation is the boundary's."""
        self._ended = task.index

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what the validation must not change."""
        if self._due(trainer):
            self._before = fingerprints(pl_module), random_states(trainer.strategy.root_device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make all checks, at a task's end."""
        if not self._due(trainer):
            return
        stream = require_stream(trainer, type(self).__name__)
        task, self._checked = stream.task_index, self._ended
        found = [*self._of_the_validation(trainer, pl_module), *self._of_the_head(stream, pl_module)]
        chosen_by, validated = data_checks.choosers(trainer), data_checks.validated_metrics(trainer)
        found.append(data_checks.selection(chosen_by, validated, stream.eval_data("val").split))
        found += self._of_predictions(trainer, pl_module, stream)
        self._add(trainer, [check.after(task) for check in found], f"after task {task + 1}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the card."""
        if self.print_card and trainer.is_global_zero:
            print_table(protocol_table(self.card))

    def _due(self, trainer: Trainer) -> bool:
        """Whether this validation is a task boundary's first, or one of its own (``trainer.validate``)."""
        if trainer.sanity_checking:
            return False
        return trainer.state.fn == "validate" or self._checked < self._ended

    def _of_the_validation(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[Check]:
        assert self._before is not None
        (weights, generators), self._before = self._before, None
        moved = moved_names(weights, fingerprints(pl_module))
        compared, numbers = f"{len(weights)} tensors before and after the validation", {"moved": len(moved)}
        message = (
            f"the validation changed {', '.join(moved[:5])}{' and others' if len(moved) > 5 else ''}, so training goes "
            "on otherwise than without it; update nothing in `validation_step` and its hooks, and keep batch norm in "
            "eval mode."
        )
        yield verdict("state", compared, message if moved else "", numbers)
        drawn = generators_moved(generators, random_states(trainer.strategy.root_device))
        compared = "the random generators before and after the validation"
        message = (
            f"the validation drew from the generator(s) of {', '.join(drawn)}, so its results are random and training "
            "goes on otherwise than without it; use deterministic evaluation transforms and draw nothing in "
            "`validation_step`."
        )
        yield verdict("random numbers", compared, message if drawn else "")

    def _of_the_head(self, stream: ContinualDataModule, pl_module: LightningModule) -> Iterator[Check]:
        state: Any = getattr(pl_module, "continual", None)
        if self._rows is None or self._rows[0] != stream.task_index:
            yield Check("unseen rows", "not checked", message="the task was not trained here")
        else:
            mask = None if state is None else state.train_mask
            yield unseen_rows(self._rows[1], self._row_fingerprints(), stream.exposed_classes, mask)

    def _of_predictions(
        self, trainer: Trainer, pl_module: LightningModule, stream: ContinualDataModule
    ) -> Iterator[Check]:
        assert self._capture is not None
        probe = Probe(trainer, pl_module, stream, self._capture, self.probe)
        batches, seen = in_batches(probe.rows, probe.full), (getattr(c, "answers", None) for c in callbacks_of(trainer))
        answers = next((found for found in seen if isinstance(found, AnswerCheck)), None)  # of an evaluation
        own = AnswerCheck()
        if answers is None:
            own.begin(pl_module, self._capture.layer.out_features)
        expected = probe.logits(batches)
        own.end(pl_module, expected[batches[-1]], self._capture.order)
        yield _of_answers(answers or own)
        masked = getattr(pl_module, "continual", None) is not None
        yield unseen_classes(expected, stream.exposed_classes, masked)
        tolerance = Tolerance.of(expected.dtype, str(trainer.precision), trainer.strategy.root_device.type)
        yield from prediction_checks(probe, expected, tolerance)

    def _row_fingerprints(self) -> Tensor:
        """``(C_head,)``: weight and bias of each class."""
        assert self._capture is not None
        layer = self._capture.layer
        return sum(
            (row_fingerprints(p) * (2 * place + 1) for place, p in enumerate(layer.parameters())),
            torch.zeros(layer.out_features, dtype=torch.int64, device=layer.weight.device),
        )

    def _add(self, trainer: Trainer, found: Iterable[Check], when: str) -> None:
        """Put findings of all processes on the card; say or raise what was violated."""
        found = agreed(list(found), trainer.world_size)
        known = {check.name for check in self.card.violations}
        self.card = self.card.add(found)
        failed = [check for check in found if check.result == "fail"]
        if failed and self.on_violation == "error":
            raise ProtocolError("\n".join(f"protocol violated {when}, {c.name}: {c.message}" for c in failed))
        for check in failed:
            if check.name not in known:  # once a run
                rank_zero_warn(f"protocol violated {when}, {check.name}: {check.message}")

    def state_dict(self) -> dict[str, Any]:
        """The card so far, and the head's rows at the start of the current task."""
        return {
            "version": 1,
            "card": self.card.to_dict(),
            "ended": self._ended,
            "checked": self._checked,
            "rows": None if self._rows is None else [self._rows[0], self._rows[1].cpu()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a card."""
        self.card = ProtocolCard.from_dict(state_dict["card"])
        self._ended, self._checked = int(state_dict["ended"]), int(state_dict["checked"])
        rows = state_dict["rows"]
        self._rows = None if rows is None else (int(rows[0]), rows[1].cpu())


def _of_answers(answers: AnswerCheck) -> Check:
    """Whether the module answered with its head."""
    compared = "what the module and what its head chose"  # in how many samples depends on processes and stops
    result: Result = "fail" if answers.differs else "pass" if answers.compared else "not checked"
    return Check("answers", result, compared, answers.message, {"differ": answers.differ})


def agreed(found: list[Check], world_size: int) -> list[Check]:
    """Findings of all processes in one: what fails on one process fails."""
    if world_size == 1:
        return found
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, found)
    return list(ProtocolCard().add(check for part in gathered for check in part).checks)
