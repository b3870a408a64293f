"""Classify features of a frozen network by a head that is computed from them, without gradient."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_cl.nn.distributed import gather_rows
from lightning_cl.nn.feature_reuse import FeatureBypass
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.training.evaluated_batch import KnownFeatures
from lightning_cl.training.evaluation_mode import expect_eval_mode
from lightning_cl.training.first_task import FirstTask
from lightning_cl.training.loss_terms import zero_through
from lightning_cl.training.step import Step
from lightning_cl.training.task_data import TaskData


class FeatureHead(Protocol):
    """A head of running statistics, such as class means or a Gram matrix."""

    def update(self, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add ``(B, D)`` features of classes ``(B,)``; rows with weight 0 do not count."""

    def __call__(self, features: Tensor) -> Any:
        """``(B, D)`` features to ``(B, C)`` logits; -inf for classes without samples."""


class FeatureClassifier(KnownFeatures):
    """Counts each training sample once, and answers with a head made of the counts.

    Samples are counted in the steps of a task's first epoch, where each passes the network once and task boundaries
    play no part; or at the end of the task, in a pass over its samples on the evaluation transform.

    Args:
        module: Without ``first`` it is frozen here, and in eval mode from now on.
        bank: The head, a module.
        cache_features: Compute the feature of an evaluation image once per run. Needs evaluation transforms without
            randomness.
        first: What learns in the first task, before anything is counted; ``None``: nothing does.
        at_task_end: Count at the end of the tasks, as must be with ``first``.
    """

    makes_logits = True

    def __init__(
        self,
        module: Any,
        bank: FeatureHead,
        cache_features: bool = True,
        first: FirstTask | None = None,
        at_task_end: bool = False,
    ) -> None:
        super().__init__()
        self.bank, self.cache_features, self.monitored = bank, cache_features, False
        self.first, self.at_task_end = first, at_task_end or first is not None
        self.bypass = FeatureBypass(module, module.continual_head)
        if first is None:
            module.requires_grad_(False)
            # DDP and optimisers want something to hold on to; its gradient is zero and its rows are protected.
            module.continual_head.requires_grad_(True)
            module.eval()  # here too: the Trainer keeps the mode that it finds, and may never call `train`
        after_load(self, "forget_features")
        expect_eval_mode()

    def trains_now(self) -> bool:
        """In the first task, where something learns in it."""
        return self.first is not None and self.first.learns

    def start_run(self, module: Any) -> None:
        """Find out whether what the user's step logs is monitored."""
        self.monitored = module.automatic_optimization and _is_monitored(module.trainer)

    def own_step(self, step: Step) -> Tensor | None:
        """Count the batch, the first time that it comes; the user's step is made for its logs only."""
        module, trainer = step.module, step.module.trainer
        stream = getattr(trainer, "datamodule", None)
        if self.trains_now() or (stream is not None and not self.counts_now(trainer, stream)):
            return None
        with torch.no_grad():
            if not self.at_task_end:
                features, targets = module.head_input(step.inputs), step.targets
                self.bank.update(*gather_rows(features, targets, *_shares(trainer, stream, len(targets))))
            if not self.monitored:
                return None
            step.users_step()
        return zero_through((p for p in module.parameters() if p.requires_grad), module.device)

    def counts_now(self, trainer: Any, stream: Any) -> bool:
        """In a task's first epoch, and for the first update with a batch (``updates_per_batch``)."""
        new: int = stream.new_samples(trainer.fit_loop.batch_idx)
        return bool(trainer.current_epoch == stream.task.first_epoch) and new > 0

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` logits of the bank, -inf for classes without samples; in the first task of what learns in it."""
        if self.first is not None and self.first.learns:
            return self.first.logits(module, features, logits)
        answer: Tensor = self.bank(features)
        return answer.to(logits.dtype)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Nothing learns from here on; count the task's samples if that was not done in the steps."""
        if self.first is not None:
            self.first.finish()
        if self.at_task_end:
            self.count(data)

    def count(self, data: TaskData) -> None:
        """Add the samples of a task that has ended."""
        for features, labels, _ in data.features():
            self.bank.update(features, labels)


def _is_monitored(trainer: Any) -> bool:
    """Whether a callback or a schedule waits for a logged value."""
    schedules = (config.monitor for config in trainer.lr_scheduler_configs if config.reduce_on_plateau)
    return any((*schedules, *(getattr(callback, "monitor", None) for callback in trainer.callbacks)))


def _shares(trainer: Any, stream: Any, local: int) -> tuple[int, int | None]:
    """An upper bound of any process's rows, and how many of this one's count."""
    if stream is None or trainer.world_size == 1:
        return local, None
    real = stream.train_batch(trainer.fit_loop.batch_idx).real
    return -(-trainer.train_dataloader.batch_size // trainer.world_size), int(real)
