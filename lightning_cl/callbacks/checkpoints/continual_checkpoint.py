"""Checkpoints that no kill can break: every few hundred steps, at every task boundary, and when the run is stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from weakref import proxy

import torch

from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import CheckpointWriteError, make_atomic, prepare_folder
from lightning_cl.callbacks.checkpoints.run_folder import run_folder
from lightning_cl.callbacks.checkpoints.stop_signals import StopSignals, stop_exception
from lightning_cl.checkpoint_file import damage, intact_before, is_local
from lightning_cl.datamodules.resume import ends_within_epoch, validation_follows
from lightning_cl.leftovers import clear_report_leftovers
from lightning_cl.namespace import LightningModule, ModelCheckpoint, Trainer, rank_zero_warn

#: What the processes agree on after a batch: one of these, or the number of a signal, which wins as it is larger.
_GO_ON, _SAVE = 0, 1
#: With several processes a validation asks this rarely whether to stop: every question is a round of messages.
_VALIDATION_BATCHES = 10


class ContinualCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt`` from which a run that was stopped, killed or cut off goes on as if nothing had happened.

    ``last.ckpt`` is replaced after ``every_n_steps`` optimiser steps or ``every_n_minutes``, whichever comes first, at
    every task boundary and at the end; ``task=T.ckpt`` is written at the boundary of task T, after its evaluation. All
    files are written atomically (``AtomicCheckpointIO``): a kill in
    the middle of a write leaves the file before it. ``trainer.fit(..., ckpt_path="last")`` finds the file by
    Lightning's own rule, in the same run folder; half-written files of others are passed over. The resumed run ends in
    the same bits as one that was never stopped.

    SIGTERM and Ctrl-C end the run after the current optimiser step (in a validation: after its current batch), with
    ``last.ckpt`` at that very step; a second Ctrl-C ends it at once. Under DDP all processes stop after the same step,
    also when the signal reached one of them only. A disk that is full or a folder that cannot be written to ends the
    run with one error, and what was saved stays. A loss that is not finite is never saved.

    Args:
        dirpath: Folder of the files; ``None``: ``checkpoints`` in the logger's folder, as in Lightning.
        every_n_steps: Optimiser steps after which ``last.ckpt`` is replaced, at least 1; what a kill costs at most. A
            file holds the weights, frozen ones too, and the optimiser's state of the trained ones: 0.4 GB for a
            ViT-B/16, about a second of writing.
        every_n_minutes: Minutes after which it is replaced although fewer steps were made; ``None``: steps only.
        keep_tasks: Keep a file of every task boundary. ``False`` keeps ``last.ckpt`` only.

    Raises:
        ValueError: If an interval is out of range.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        every_n_steps: int = 500,
        every_n_minutes: float | None = 10.0,
        keep_tasks: bool = True,
    ) -> None:
        if isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise ValueError(f"`every_n_steps` is {every_n_steps!r}; give a number of optimiser steps of at least 1.")
        if every_n_minutes is not None and not every_n_minutes > 0:
            raise ValueError(f"`every_n_minutes` is {every_n_minutes!r}; give minutes above 0, or None for never.")
        super().__init__(dirpath, save_top_k=0, save_last=True)
        self.every_n_steps, self.every_n_minutes, self.keep_tasks = every_n_steps, every_n_minutes, keep_tasks
        #: Say how to continue after a stop; the command line does so in its own words.
        self.speaks = True
        self._begin()

    def _begin(self) -> None:
        self._signals = StopSignals()
        self._saved_at = time.monotonic()
        self._saved_step: int | None = None
        self._steps = 0  # optimiser steps since the last file
        self._pending: dict[str, Any] | None = None  # as of the batch before the validation that runs now
        self._off = False

    @property
    def state_key(self) -> str:
        """A literal; nothing is saved under it, so that a run may go on in another folder."""
        return "lightning_cl.ContinualCheckpoint"

    def state_dict(self) -> dict[str, Any]:
        """Save nothing: where files lie and when they were written is of this run only."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load nothing, since nothing was saved."""

    # ------------------------------------------------------------------ life cycle

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, see that it can be written to, and make the Trainer's files atomic.

        Raises:
            ValueError: If there is no stream.
            CheckpointWriteError: If the folder cannot be written to.
        """
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        require_stream(trainer, type(self).__name__)
        self.last_model_path = ""
        self._begin()
        self._off = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if not self._off:
            make_atomic(trainer.strategy)
            folder = str(self.dirpath)
            if trainer.is_global_zero and is_local(folder):
                clear_report_leftovers(run_folder(trainer))
                _together(trainer, lambda: prepare_folder(Path(folder)))
            else:
                _together(trainer, lambda: None)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over."""
        self._signals.install(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over, and begin to count the minutes."""
        self._signals.install(trainer)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time; stop when asked to. Never between batches whose gradients accumulate."""
        self._pending = None
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        self._steps += 1
        order = self._order(trainer)
        if order != _GO_ON or self._steps >= self.every_n_steps or ends_within_epoch(trainer):
            self._save(trainer, "last")
        elif not self._off and validation_follows(trainer):
            self._pending = _dump(trainer)  # references, no copies: nothing of it changes in a validation,
            if "current_model_state" in self._pending:  # except averaged weights, which are swapped in and out
                self._pending = deepcopy(self._pending)
        self._obey(order)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop when asked to, with a checkpoint of the step before the validation, which the resumed run repeats."""
        if trainer.state.fn != "fit" or (trainer.world_size > 1 and batch_idx % _VALIDATION_BATCHES):
            return
        if trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            return  # the hooks at the end of the validation may change what is pending
        order = self._order(trainer)
        if order > _SAVE:
            if self._pending is not None:
                self._save(trainer, "last", checkpoint=self._pending)
            self._obey(order)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at a task's boundary, which has been evaluated by now; stop when asked to."""
        self._pending = None
        task, order = require_stream(trainer, type(self).__name__).task, self._order(trainer)
        whole = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # not cut short by `max_steps`
        if trainer.current_epoch == task.last_epoch and whole:
            self._save(trainer, *([f"task={task.index}"] if self.keep_tasks else []), "last")
        elif order != _GO_ON:
            self._save(trainer, "last")
        self._obey(order)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save nothing; a boundary is saved when its epoch ends."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of a run that ended within a task."""
        if self._steps:
            self._save(trainer, "last")
        self._obey(self._order(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say where the run stopped and how to continue it; nothing is saved in the middle of a step."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        path = self.newest(trainer, own=not stopped)
        if self.speaks and path and trainer.is_global_zero and trainer.state.fn == "fit":
            why = "interrupted" if stopped else f"stopped by {type(exception).__name__}"
            step = "" if self._saved_step is None else f" of step {self._saved_step}"
            print(
                f"\n{type(self).__name__}: {why} in {position(trainer)}. Continue from the checkpoint{step} with "
                f'`trainer.fit(model, datamodule=stream, ckpt_path="{path}")`.',
                file=sys.stderr,
            )

    # ------------------------------------------------------------------ stopping

    def _order(self, trainer: Trainer) -> int:
        """What all processes do now: the largest of what any of them wants."""
        minutes = (time.monotonic() - self._saved_at) / 60
        late = self._steps > 0 and self.every_n_minutes is not None and minutes >= self.every_n_minutes
        order = self._signals.asked or (_SAVE if late else _GO_ON)
        if trainer.world_size > 1:
            wanted = torch.tensor(order, device=trainer.strategy.root_device)
            order = int(trainer.strategy.reduce(wanted, reduce_op="max"))
        return order

    @staticmethod
    def _obey(order: int) -> None:
        if order > _SAVE:
            raise stop_exception(order)

    def newest(self, trainer: Trainer, own: bool = False) -> str | None:
        """Path of this run's newest checkpoint; else, unless only its ``own`` count, of the one it was resumed from."""
        path = self.last_model_path or (None if own or trainer.ckpt_path is None else str(trainer.ckpt_path))
        if not path or not is_local(path):
            return path or None
        relative = os.path.relpath(path)
        return path if relative.startswith(os.pardir) else relative

    # ------------------------------------------------------------------ files

    def _save(self, trainer: Trainer, *names: str, checkpoint: dict[str, Any] | None = None) -> None:
        """Write the same checkpoint under all names; ``last`` is the last of them, so that it is the newest."""
        if self._off:
            return
        checkpoint = _dump(trainer) if checkpoint is None else checkpoint
        for name in names:
            path = os.path.join(str(self.dirpath), f"{name}{self.FILE_EXTENSION}")
            _together(trainer, lambda path=path: trainer.strategy.save_checkpoint(checkpoint, path))  # type: ignore[misc]
        self.last_model_path = self.best_model_path = self._last_checkpoint_saved = path
        self._last_global_step_saved = self._saved_step = int(checkpoint["global_step"])
        self._saved_at, self._steps = time.monotonic(), 0
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """Lightning's rule for ``ckpt_path="last"``, with the next older intact file in the place of a damaged one."""
        found: set[str] = super()._find_last_checkpoints(trainer)
        usable: set[str] = set()
        for path in sorted(found):
            reason = damage(Path(path)) if is_local(path) and os.path.isfile(path) else None
            other = intact_before(Path(path)) if reason else None
            usable |= {str(other)} if other else set() if reason else {path}
            if reason:
                instead = f" in favour of {other}" if other else ""
                rank_zero_warn(f"{path} {reason} and is passed over{instead}.")
        return usable


def position(trainer: Trainer) -> str:
    """``epoch 3 of 25 (task 1 of 5), step 54``; tasks are counted from 1, epochs are those that are over."""
    stream = trainer.datamodule  # type: ignore[attr-defined]
    task = f" (task {stream.task_index + 1} of {stream.info.num_tasks})" if stream is not None else ""
    return f"epoch {trainer.current_epoch} of {trainer.max_epochs}{task}, step {trainer.global_step}"


def _dump(trainer: Trainer) -> dict[str, Any]:
    """What ``trainer.save_checkpoint`` writes; all processes take part."""
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return checkpoint


def _together(trainer: Trainer, action: Callable[[], None]) -> None:
    """Do it in all processes; where it fails in the first, which writes, all of them fail, and none waits for it."""
    error: Exception | None = None
    try:
        action()
    except Exception as failure:
        error = failure
    message = trainer.strategy.broadcast(None if error is None else str(error))
    if error is not None:
        raise error
    if message is not None:
        raise CheckpointWriteError(message)
