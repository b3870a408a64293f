"""Evaluate batches with the module's own validation step in the middle of training, without side effects."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.side_effects import collected, put_back
from lightning_cl.datamodules.resume import random_states, set_random_states
from lightning_cl.datamodules.stream_plan import EvalBatch, Stage
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.namespace import LightningModule, RunningStage, Trainer, is_param_in_hook_signature
from lightning_cl.training.transfer import transferred

_SILENT = ("log", "log_dict")


class SilentEvaluation:
    """Context in which a module evaluates batches that the Trainer knows nothing of.

    Within it the module is in eval mode, gradients are off and the Trainer is in its validating stage, so that the
    module and its strategy do what they do in a validation. Nothing is logged, and afterwards training modes, the
    states of the module's torchmetrics, what the module collects in attributes and all random states are what they
    were.

    Args:
        trainer: The Trainer, in a fit.
        pl_module: Its module, with a ``validation_step``.
        capture: Reads the logits.
    """

    def __init__(self, trainer: Trainer, pl_module: LightningModule, capture: HeadCapture) -> None:
        self.trainer, self.pl_module, self.capture = trainer, pl_module, capture
        self._modes: list[tuple[torch.nn.Module, bool]] = []
        self._metrics: list[tuple[Metric, dict[str, Any]]] = []
        self._stage: RunningStage | None = None
        self._random: dict[str, Any] = {}
        self._collected: dict[str, Any] = {}
        self._grad = torch.no_grad()

    def __enter__(self) -> SilentEvaluation:
        module = self.pl_module
        self._modes = [(m, m.training) for m in module.modules()]
        self._metrics = [(m, _metric_state(m)) for m in module.modules() if isinstance(m, Metric)]
        self._random = random_states(self.trainer.strategy.root_device)
        self._collected = collected(module)
        self._stage = self.trainer.state.stage
        for name in _SILENT:  # in front of the class's own
            module.__dict__[name] = _nothing
        self.trainer.state.stage = RunningStage.VALIDATING
        module.eval()
        self._grad.__enter__()
        if isinstance(module, ContinualMixin):
            module.start_evaluation()  # before the head's answers are read
        self.capture.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grad.__exit__(kind, error, trace)
        self.capture.stop()
        module = self.pl_module
        self.trainer.state.stage = self._stage
        for name in _SILENT:
            module.__dict__.pop(name, None)
        for part, mode in self._modes:
            part.training = mode
        for metric, state in self._metrics:
            metric.__dict__.update(state)
        put_back(module, self._collected)
        set_random_states(self._random, self.trainer.strategy.root_device)

    def logits(
        self,
        batch: Any,
        batch_idx: int,
        count: int,
        stage: Stage | None = None,
        samples: EvalBatch | None = None,
        task: int | None = None,
    ) -> Tensor:
        """``(count, C)`` logits of a batch, after all masks, on the module's device.

        Args:
            batch: As a loader of the stream gives it.
            batch_idx: Handed to the module's step.
            count: Samples of the batch that count; those behind are padding.
            stage: The batch is ``stream.eval_batch(batch_idx, stage)``, so caches of frozen features may be used, and
                that is what a module gets that asks for ``stream.eval_batch(batch_idx, "val")``.
            samples: What such a module gets instead, for a batch that is of no stage.
            task: The task that methods are told which ask for it, for a batch that is of no stage.
        """
        trainer, module = self.trainer, self.pl_module
        batch = transferred(trainer, batch)
        announced = stage if hasattr(module, "expect_images") else None
        if announced is not None:
            module.expect_images(batch_idx, announced)  # type: ignore[operator]
        elif task is not None:
            module.continual.choice.told = task  # type: ignore[union-attr]
        # As Lightning does: by place, whatever the step calls it.
        takes_index = is_param_in_hook_signature(module.validation_step, "batch_idx", min_args=2)
        stream = trainer.datamodule  # type: ignore[attr-defined]
        stream.standing_in = stage if samples is None else samples
        try:
            with trainer.precision_plugin.val_step_context():
                module.validation_step(*((batch, batch_idx) if takes_index else (batch,)))
        finally:
            stream.standing_in = None
            if announced is not None or task is not None:
                module.forget_images()  # type: ignore[operator]
        return self.capture.take(count, batch)


def _metric_state(metric: Metric) -> dict[str, Any]:
    kept = ("_update_count", "_computed", "_forward_cache", "_is_synced", "_update_called")
    state: dict[str, Any] = dict(metric._copy_state_dict())
    return state | {name: metric.__dict__[name] for name in kept if name in metric.__dict__}


def _nothing(*_: Any, **__: Any) -> None:
    """In the place of ``self.log``."""
