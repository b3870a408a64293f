"""Measure around every request to forget whether something was forgotten, or is only hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import check_above
from lightning_cl.callbacks.base import ContinualCallback, require_stream
from lightning_cl.datamodules import ContinualDataModule, Task
from lightning_cl.datamodules.scenarios.joint import Joint
from lightning_cl.metrics.functional import forget_generalisation, membership_gap
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.heads import GramHead
from lightning_cl.training.batch import call_with, unpack_for
from lightning_cl.training.evaluation_mode import evaluating
from lightning_cl.training.model_output import logits_in
from lightning_cl.training.transfer import transferred


@dataclass(frozen=True)
class Answered:
    """What a module made of samples, on the CPU.

    Attributes:
        features: ``(N, D)`` what reached the head.
        labels: ``(N,)`` class ids.
        losses: ``(N,)`` cross-entropy in nats among the seen classes.
        right: ``(N,)`` bool.
    """

    features: Tensor
    labels: Tensor
    losses: Tensor
    right: Tensor

    def of(self, classes: tuple[int, ...]) -> Answered:
        """The samples of some classes."""
        kept = torch.isin(self.labels, torch.tensor(classes))
        return Answered(self.features[kept], self.labels[kept], self.losses[kept], self.right[kept])

    @property
    def accuracy(self) -> float:
        """Share that is right, in [0, 1]; NaN without samples."""
        return float(self.right.double().mean())


class UnlearningEvaluation(ContinualCallback):
    """What a request to forget left: accuracy on both kinds of samples, membership, and what a probe recovers.

    On a ``Forget`` stream, before and after every request, over the classes that it asks to forget: the accuracy on
    their training samples (``forget_accuracy``) and on their test samples (``held_out_accuracy``), and on the test
    samples of the classes that stay (``retain_accuracy``); ``membership_gap``, by how much their training samples can
    be told from their test samples by the loss; and ``probe_accuracy``, what a ridge classifier on the features, fitted
    anew to the training samples of all classes seen, still gets right of their test samples: a module whose head alone
    forgot has it as before. Afterwards also ``generalisation``, how far their test samples are lost, 1 at chance. All
    are in the report's facts. It leaves no trace in training; it reads all samples, which a method must not.

    Works on modules whose ``forward`` returns the logits; each measurement is a pass over both splits, which every
    process makes whole.

    Args:
        ridge: Of the probe, above 0.
        batch_size: Samples of a pass, at least 1.

    Raises:
        ValueError: If the ridge is not above 0; in ``setup``, on a stream that asks to forget nothing, or without test
            samples of a class that it asks to forget.
    """

    state_key = "lightning_cl.UnlearningEvaluation"

    def __init__(self, ridge: float = 1.0, batch_size: int = 128) -> None:
        self.ridge, self.batch_size = ridge, batch_size
        check_above(self, 0, "ridge")
        #: For every request, by the index of its task, what was measured before and after it.
        self.requests: dict[int, dict[str, dict[str, float]]] = {}
        self._samples: ContinualDataModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the samples, and check that there is something to measure."""
        stream = require_stream(trainer, type(self).__name__)
        if stage != "fit":
            return
        asked = [label for request in stream.info.forgets_per_task for label in request]
        if not asked:
            raise ValueError(
                f"UnlearningEvaluation measures requests to forget, but this stream ({type(stream.scenario).__name__}) "
                "has none; use the scenario `Forget`, or leave it out."
            )
        own = stream.eval_transform
        self._samples = ContinualDataModule(
            stream.source, Joint(), eval_batch_size=self.batch_size, batch_size=self.batch_size, eval_transform=own
        )
        self._samples.setup("validate")
        missing = sorted(set(asked) - set(self._samples.eval_data("val").labels.tolist()))
        if missing:
            raise ValueError(
                f"the classes {missing} are to be forgotten, but there are no test samples of them, so a probe has "
                "nothing to answer; give the source a test split with them."
            )
        self.requests = {}

    def on_task_start(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """Measure what is there to be forgotten."""
        if task.forgets:
            self.requests[task.index] = {"before": self.measure(trainer, pl_module, task)}

    def on_task_end(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        """Measure what is left of it."""
        if not task.forgets:
            return
        after, before = self.measure(trainer, pl_module, task), self.requests[task.index]["before"]
        chance = 1 / len(task.seen_classes)
        accuracies = before["held_out_accuracy"], after["held_out_accuracy"]
        after["generalisation"] = forget_generalisation(*accuracies, chance)
        self.requests[task.index]["after"] = after

    def measure(self, trainer: Trainer, pl_module: Any, task: Task) -> dict[str, float]:
        """The numbers now, for the classes that a task asks to forget."""
        assert self._samples is not None
        trained = self._answered(trainer, pl_module, self._samples.train_loader_for(0, "eval"))
        tested = self._answered(trainer, pl_module, self._samples.val_dataloader())
        gone = {c for tasks in trainer.datamodule.info.forgets_per_task[: task.index + 1] for c in tasks}  # type: ignore[attr-defined]
        stays = tuple(c for c in task.seen_classes if c not in gone)
        forget, held_out = trained.of(task.forgets), tested.of(task.forgets)
        return {
            "forget_accuracy": forget.accuracy,
            "held_out_accuracy": held_out.accuracy,
            "retain_accuracy": tested.of(stays).accuracy,
            "membership_gap": float(membership_gap(forget.losses, held_out.losses)),
            "probe_accuracy": probe_accuracy(trained.of(task.seen_classes), held_out, self.ridge),
        }

    def _answered(self, trainer: Trainer, pl_module: Any, loader: Any) -> Answered:
        parts: list[tuple[Tensor, ...]] = []
        with evaluating(pl_module):
            for batch in loader:
                inputs, targets = unpack_for(pl_module, transferred(trainer, batch))
                with pl_module.recorded() as calls:
                    output = call_with(pl_module, inputs)
                logits = logits_in(output, calls[-1].raw_logits.shape[-1]).double()
                losses = F.cross_entropy(logits, targets, reduction="none")
                right = logits.argmax(dim=1) == targets
                parts.append(tuple(t.cpu() for t in (calls[-1].features.double(), targets, losses, right)))
        return Answered(*map(torch.cat, zip(*parts, strict=True)))

    def report_facts(self) -> dict[str, Any]:
        """What was measured before and after every request, by its task."""
        return {"requests": {str(task): dict(found) for task, found in self.requests.items()}}

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"version": 1, "requests": dict(self.requests)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on."""
        self.requests = dict(state_dict["requests"])


def probe_accuracy(known: Answered, asked: Answered, ridge: float) -> float:
    """Accuracy on some samples of a ridge classifier on features, fitted to others, in [0, 1].

    Args:
        known: What it is fitted to.
        asked: What it answers.
        ridge: Above 0.
    """
    classes, labels = known.labels.unique(return_inverse=True)
    probe = GramHead(known.features.shape[1] + 1, len(classes), ridge)
    probe.update(_with_one(known.features), labels)
    return float((classes[probe(_with_one(asked.features)).argmax(dim=1)] == asked.labels).double().mean())


def _with_one(features: Tensor) -> Tensor:
    """``(N, D + 1)``: a column of ones is the bias."""
    return F.pad(features, (0, 1), value=1.0)
