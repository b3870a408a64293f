"""Binds a stream to the Trainer: fires the task hooks, reloads at boundaries, keeps random states, stops on NaN."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_cl.datamodules.task import Task

if TYPE_CHECKING:
    from lightning_cl.datamodules.datamodule import ContinualDataModule

#: What Lightning sets when the user gave no ``max_epochs``.
_LIGHTNING_DEFAULT_EPOCHS = 1000


class StreamDriver(Callback):
    """First callback of every fit on a stream; put there by :class:`ContinualDataModule`, never by the user.

    ``on_task_start`` fires before the first batch of a task's first epoch, ``on_task_end`` after the last batch of its
    last epoch and before that epoch's validation.
    """

    def __init__(self, stream: ContinualDataModule) -> None:
        self.stream = stream
        self.started = -1  # last task whose on_task_start has fired
        self.ended = -1  # last task whose on_task_end has fired
        self._batch_idx = 0
        self._hook: Any = None
        self._random_states: dict[str, Any] | None = None
        self._bad_step: Tensor | None = None  # first step with a non-finite loss, on the device; -1: none

    # ------------------------------------------------------------------ binding

    @classmethod
    def install(cls, stream: ContinualDataModule, trainer: Trainer) -> None:
        """Put a fresh driver in front of the Trainer's callbacks and let the schedule decide ``max_epochs``."""
        callbacks = [c for c in trainer.callbacks if not isinstance(c, cls)]  # type: ignore[attr-defined]
        trainer.callbacks[:] = [cls(stream), *callbacks]  # type: ignore[attr-defined]
        _check_max_epochs(stream, trainer)
        cls.fit_schedule(stream, trainer)
        stopping = [c for c in callbacks if isinstance(c, EarlyStopping)]
        if stopping and stream.early_stopping == "stream":
            rank_zero_warn(
                "`EarlyStopping` will end the whole stream, not the task; "
                'set `ContinualDataModule(early_stopping="task")` to end only the current task.'
            )

    @staticmethod
    def fit_schedule(stream: ContinualDataModule, trainer: Trainer) -> None:
        """Make the Trainer's epochs follow the schedule; a user's smaller ``max_epochs`` wins."""
        total, limit = stream.schedule.total, stream.epoch_limit
        trainer.fit_loop.max_epochs = total if limit is None else min(total, limit)
        if stream.early_stopping == "task":
            # A stop request then only takes effect at the end of the stream; until there it ends the task.
            trainer.fit_loop.min_epochs = trainer.fit_loop.max_epochs

    # ------------------------------------------------------------------ task hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the cause when a checkpoint with a method is loaded into a module without one."""
        if not _methods(trainer):
            self._hook = pl_module.register_load_state_dict_pre_hook(_refuse_method_state)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        if self._hook is not None:
            self._hook.remove()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reload the training data if the checkpoint was the last of its task."""
        self._reload(trainer, self.stream.loaded.get("train") != self.stream.task_index)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a task in its first epoch."""
        self._restore_random_states()
        if trainer.should_stop and self.stream.early_stopping == "task":
            self._stop_task(trainer)
        task = self.stream.task
        if task.index > self.started:
            self.started = task.index
            self._reset_early_stopping(trainer)
            _call_task_hook(trainer, pl_module, "on_task_start", task)
            if task.index > 0 and getattr(getattr(pl_module, "continual", None), "reset_optimizer", False):
                trainer.strategy.setup_optimizers(trainer)
        # Lightning asks for validation data only when told so; it is due when the seen tasks have grown.
        self._reload(trainer, self.stream.loaded.get("val") != self.stream.num_validated_tasks)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Continue with the checkpoint's random states after a resume in mid-epoch."""
        self._restore_random_states()
        self._batch_idx = batch_idx

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watch the loss, and end a task after its last batch."""
        self._watch_loss(trainer, outputs)
        task = self.stream.task
        if trainer.is_last_batch and trainer.current_epoch == task.last_epoch and task.index > self.ended:
            self._check_loss(trainer)
            self.ended = task.index
            _call_task_hook(trainer, pl_module, "on_task_end", task)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reload the training data when the next epoch is of another task."""
        self._check_loss(trainer)
        following = self.stream.schedule.task_at(trainer.current_epoch + 1)
        self._reload(trainer, self.stream.loaded.get("train") != following)

    @staticmethod
    def _reload(trainer: Trainer, due: bool) -> None:
        trainer.reload_dataloaders_every_n_epochs = int(due)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Make DDP's mean over the ranks the mean over the global batch, when the ranks' shares differ."""
        weight = 1.0 if trainer.world_size == 1 else self.stream.train_batch(self._batch_idx).weight
        if weight != 1.0 and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * weight)

    # ------------------------------------------------------------------ early stopping of a task

    def _stop_task(self, trainer: Trainer) -> None:
        """A stop was asked for in the epoch before this one: let this epoch be the task's last."""
        trainer.should_stop = False
        task, epoch = self.stream.task, trainer.current_epoch
        if task.first_epoch < epoch < task.last_epoch:
            rank_zero_info(
                f"Task {task.index} stops early, after epoch {epoch - task.first_epoch + 1} of {task.epochs}."
            )
            self.stream.shorten(task.index, epoch - task.first_epoch + 1)
            self.fit_schedule(self.stream, trainer)

    def _reset_early_stopping(self, trainer: Trainer) -> None:
        if self.stream.early_stopping != "task":
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                callback.wait_count = 0
                callback.best_score = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)

    # ------------------------------------------------------------------ non-finite losses

    def _watch_loss(self, trainer: Trainer, outputs: Any) -> None:
        """Remember the first bad step on the device: no host sync on an accelerator."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        if self._bad_step is None:
            self._bad_step = torch.full((), -1, device=loss.device)
        bad = ~torch.isfinite(loss.detach()).all() & (self._bad_step < 0)
        self._bad_step = torch.where(bad, trainer.global_step, self._bad_step)
        first = trainer.global_step <= 1
        if loss.device.type == "cpu" or first or trainer.global_step % trainer.log_every_n_steps == 0:
            self._check_loss(trainer)

    def _check_loss(self, trainer: Trainer) -> None:
        if self._bad_step is not None and int(self._bad_step) >= 0:
            task = self.stream.task
            raise FloatingPointError(
                f"the training loss is not finite in task {task.index}, epoch {trainer.current_epoch} "
                f"(epoch {trainer.current_epoch - task.first_epoch} of the task), optimiser step {int(self._bad_step)}. "
                "No checkpoint was written after that step; the last one is good. Common causes: a learning rate that "
                "is too high, label smoothing or soft targets together with a class mask (masked classes have the "
                'logit -inf; train with `train_mask="all"` or without smoothing), and overflow in 16-bit precision.'
            )

    # ------------------------------------------------------------------ state

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the random states of all ranks and the boundary counters; refuse to save after a bad loss."""
        self._check_loss(trainer)
        states: list[Any] = [_random_states()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, _random_states())
        checkpoint["lightning_cl"] = {
            "version": 1,
            "started": self.started,
            "ended": self.ended,
            "random_states": states,
            "info": self.stream.info.state_dict(),
            "methods": _methods(trainer),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the boundary counters now and the random states when training goes on."""
        saved = checkpoint.get("lightning_cl")
        if saved is None:
            raise ValueError(
                "the checkpoint was not made on a stream of lightning_cl, so the position in the stream is unknown; "
                "load its weights with `model.load_state_dict(torch.load(path)['state_dict'])` and start anew."
            )
        self.started, self.ended = int(saved["started"]), int(saved["ended"])
        states = saved["random_states"]
        self._random_states = states[trainer.global_rank] if trainer.global_rank < len(states) else states[0]

    def _restore_random_states(self) -> None:
        if self._random_states is not None:
            _set_random_states(self._random_states)
            self._random_states = None


def _call_task_hook(trainer: Trainer, pl_module: LightningModule, name: str, task: Task) -> None:
    """The module first (its mixins set masks and prompts up), then the callbacks in their order."""
    module_hook = getattr(pl_module, name, None)
    if callable(module_hook):
        module_hook(task)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        hook = getattr(callback, name, None)
        if callable(hook):
            hook(trainer, pl_module, task)


def _methods(trainer: Trainer) -> list[str]:
    return [c.state_key for c in trainer.callbacks if hasattr(c, "attach_once")]  # type: ignore[attr-defined]


def _refuse_method_state(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    if not hasattr(module, "continual") and any(key.startswith(f"{prefix}continual.") for key in state_dict):
        raise ValueError(
            "the checkpoint was made with a continual-learning method, but this Trainer has none; add the callbacks "
            "that the checkpoint was made with."
        )


def _check_max_epochs(stream: ContinualDataModule, trainer: Trainer) -> None:
    given, total = trainer.fit_loop.max_epochs, stream.schedule.total
    stream.epoch_limit = None
    if given in (None, -1, _LIGHTNING_DEFAULT_EPOCHS, total):
        return
    assert given is not None
    if given > total:
        raise ValueError(
            f"`max_epochs` is {given} but the schedule has {total} epochs "
            f"({len(stream.schedule.epochs)} tasks, epochs per task {sorted(set(stream.schedule.epochs))}); "
            "leave `max_epochs` unset, or raise `epochs_per_task`."
        )
    stream.epoch_limit = given
    rank_zero_warn(
        f"`max_epochs={given}` ends the run in task {stream.schedule.task_at(given - 1)} of "
        f"{len(stream.schedule.epochs)}; the whole stream has {total} epochs."
    )


def _random_states() -> dict[str, Any]:
    """All global generators as tensors and plain Python values."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(internal), gauss_next],
    }


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
