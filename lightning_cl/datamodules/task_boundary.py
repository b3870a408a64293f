"""What happens where one task ends and the next begins, besides the hooks of modules and callbacks."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.task import Task
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import Callback, EarlyStopping, LightningModule, ModelCheckpoint, Trainer, rank_zero_warn


def call_task_hook(trainer: Trainer, pl_module: LightningModule, name: str, what: Task | tuple[int, ...]) -> None:
    """The module first (its mixins set masks and prompts up), then the callbacks in their order."""
    module_hook = getattr(pl_module, name, None)
    if callable(module_hook):
        module_hook(what)
    for callback in callbacks_of(trainer):
        hook = getattr(callback, name, None)
        if callable(hook):
            hook(trainer, pl_module, what)


def build_fresh_optimizers(trainer: Trainer) -> None:
    """Build optimisers and schedulers anew; one that the module hands out again forgets what it knew."""
    before = {id(optimizer) for optimizer in trainer.optimizers}
    trainer.strategy.setup_optimizers(trainer)
    for optimizer in trainer.strategy.optimizers:
        if id(optimizer) in before:
            optimizer.state.clear()


def compare_within_the_task(trainer: Trainer) -> None:
    """Let ``EarlyStopping`` and ``ModelCheckpoint`` compare what they monitor with values of the new task only.

    Values of different tasks cannot be compared: a loss over two classes is lower than one over ten, and a model that
    has not seen all tasks is never the best. The files of the tasks before stay until better ones take their place.
    """
    for callback in callbacks_of(trainer):
        if isinstance(callback, EarlyStopping):
            callback.wait_count = 0
            callback.best_score = _worst(callback.mode)
        elif isinstance(callback, ModelCheckpoint) and callback.best_k_models:
            for path in callback.best_k_models:  # to be replaced first; Lightning removes the files as usual
                callback.best_k_models[path] = _worst(callback.mode)
            callback.kth_value, callback.best_model_score = _worst(callback.mode), _worst(callback.mode)


def _worst(mode: str) -> Tensor:
    return torch.tensor(torch.inf if mode == "min" else -torch.inf)


class PlateauStart:
    """How the schedules that look at a metric (``ReduceLROnPlateau``) were before the first step."""

    def __init__(self, trainer: Trainer) -> None:
        self._states = [
            (copy.deepcopy(c.scheduler.state_dict()), [group["lr"] for group in c.scheduler.optimizer.param_groups])
            for c in trainer.lr_scheduler_configs
            if c.reduce_on_plateau
        ]

    def restore(self, trainer: Trainer) -> None:
        """Let them count anew, from the first learning rates."""
        schedulers = (c.scheduler for c in trainer.lr_scheduler_configs if c.reduce_on_plateau)
        for scheduler, (state, rates) in zip(schedulers, self._states, strict=True):
            scheduler.load_state_dict(copy.deepcopy(state))
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate


def step_plateau_schedulers(trainer: Trainer, pl_module: LightningModule) -> None:
    """Lightning saves in ``on_train_epoch_end``, just before it steps the schedulers that look at a metric."""
    for config in trainer.lr_scheduler_configs:
        due = config.reduce_on_plateau and config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
        if due and config.monitor in trainer.callback_metrics:
            pl_module.lr_scheduler_step(config.scheduler, trainer.callback_metrics[config.monitor])


def warn_of_early_stopping(callbacks: Iterable[Callback]) -> None:
    """Say that Lightning's ``EarlyStopping`` ends the stream, if it is among the callbacks."""
    if any(isinstance(callback, EarlyStopping) for callback in callbacks):
        rank_zero_warn(
            "`EarlyStopping` will end the whole stream, not the task; "
            'set `ContinualDataModule(early_stopping="task")` to end only the current task.'
        )


def end_restart(loop: Any) -> None:
    """Let one of Lightning's loops go on as if nothing had been restored; its setter would change the loops within."""
    loop._restarting = False
