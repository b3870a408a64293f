"""Binds a stream to the Trainer: fires the task hooks, reloads at boundaries, keeps random states, stops on NaN."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_cl.datamodules.averages import FrozenWeights
from lightning_cl.datamodules.exposure import refuse_other_loader
from lightning_cl.datamodules.extent import check_extent, remember_extent
from lightning_cl.datamodules.finite_loss import STEPS_BETWEEN_CHECKS, FiniteLossCheck, check_weights
from lightning_cl.datamodules.module_hooks import ModuleHooks
from lightning_cl.datamodules.progress import show_tasks
from lightning_cl.datamodules.protocol import Stream
from lightning_cl.datamodules.resume import random_states_of_all, set_random_states, settle_position, what_is_due
from lightning_cl.datamodules.task import Task
from lightning_cl.datamodules.task_boundary import (
    PlateauStart,
    build_fresh_optimizers,
    call_task_hook,
    compare_within_the_task,
    end_restart,
    step_plateau_schedulers,
    warn_of_early_stopping,
)
from lightning_cl.datamodules.trainer_checks import (
    before_loading,
    callbacks_of,
    changes_batches,
    class_readers,
    epoch_limit,
    explain_synchronised_norm,
    is_method,
    method_keys,
    refuse_copied_processes,
    refuse_split_modules,
    refuse_unplanned_loader,
    resets_optimizer,
    say_unused_loader,
)
from lightning_cl.datamodules.trainer_settings import TrainerSettings, reload_data
from lightning_cl.namespace import Callback, DoublePrecision, LightningModule, Trainer, rank_zero_info, reset_seed
from lightning_cl.versions import check_callback_versions, check_version


class TaskLoop(Callback):
    """First callback of every fit on a stream; put there by :class:`ContinualDataModule`, never by the user.

    ``on_task_start`` fires before the first batch of a task's first epoch, ``on_task_end`` after the last batch of its
    last epoch and before that epoch's validation.
    """

    def __init__(self, stream: Stream, max_epochs: int | None) -> None:
        self.stream = stream
        self.max_epochs = max_epochs  # as the user gave it
        self.limit = epoch_limit(stream, max_epochs)  # the user's, if below the schedule's total
        self.started = -1  # last task whose on_task_start has fired
        self.ended = -1  # last task whose on_task_end has fired
        self.fitted = self.fitted_epochs()  # what the Trainer's `max_epochs` was last set to
        self._batch_idx = 0
        self._checked = -1  # last task whose labels were checked
        self._hook: Any = None
        self._settings: TrainerSettings | None = None
        self._saved: dict[str, Any] | None = None  # of a checkpoint, until training goes on
        #: Epoch of a checkpoint, until the Trainer knows it: it is asked for data before.
        self.resumed_epoch: int | None = None
        self._loss = FiniteLossCheck()
        self._frozen = FrozenWeights()

    @classmethod
    def install(cls, stream: Stream, trainer: Trainer) -> TaskLoop:
        """Put a driver in front of the Trainer's callbacks and let the schedule decide ``max_epochs``."""
        callbacks = callbacks_of(trainer)
        refuse_copied_processes(trainer)
        refuse_split_modules(trainer)
        known = next((c for c in callbacks if isinstance(c, cls)), None)
        given = trainer.fit_loop.max_epochs
        if known is not None and given == known.fitted:
            given = known.max_epochs  # not the user's number, but what the last fit made of it
        if known is not None and known.stream is stream and trainer.current_epoch > 0:
            driver = known  # the same Trainer goes on where it stopped
            driver.max_epochs, driver.limit = given, epoch_limit(stream, given)
        else:
            stream.plan_schedule()
            driver = cls(stream, given)
        # Methods before those that watch them, however the list was written; checkpoints stay last.
        others = sorted((c for c in callbacks if not isinstance(c, cls)), key=lambda c: not is_method(c))
        callbacks[:] = [driver, *others]
        ModuleHooks.install(callbacks)
        driver.fit_schedule(trainer)
        if stream.early_stopping == "stream":
            warn_of_early_stopping(others)
        return driver

    def fitted_epochs(self) -> int:
        """Epochs of the schedule; a user's smaller ``max_epochs`` wins."""
        total = self.stream.schedule.total
        return total if self.limit is None else min(total, self.limit)

    def fit_schedule(self, trainer: Trainer) -> None:
        """Make the Trainer's epochs follow the schedule."""
        trainer.fit_loop.max_epochs = self.fitted = self.fitted_epochs()
        if self.stream.early_stopping == "task":
            # A stop request then only takes effect at the end of the stream; until there it ends the task.
            trainer.fit_loop.min_epochs = trainer.fit_loop.max_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show tasks in the bar, seed anew, and look at the weights of a checkpoint before they are loaded."""
        if stage == "fit":
            show_tasks(trainer)
            say_unused_loader(self.stream, pl_module)
            self._settings = TrainerSettings(trainer)
            self.stream.repeats_batches = self._settings.overfit_batches > 0
        self._saved, self.resumed_epoch, self._checked = None, None, -1
        self._loss = FiniteLossCheck()  # the Trainer may have stopped at a bad loss before
        reset_seed()  # to what `seed_everything` said; Lightning does so too, but only with several processes
        module: nn.Module = pl_module
        double = isinstance(trainer.precision_plugin, DoublePrecision)
        look = partial(before_loading, self.stream.info, bool(method_keys(trainer)), double)
        self._hook = module.register_load_state_dict_pre_hook(look)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module's hooks and the Trainer's settings."""
        if self._hook is not None:
            self._hook.remove()
        if self._settings is not None:
            self._settings.give_back(trainer)
        self._hook = self._settings = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module's hooks and the Trainer's settings."""
        explain_synchronised_norm(exception, pl_module)
        self.teardown(trainer, pl_module, "fit")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what will be trained, which is known now; keep the state of the schedules."""
        self._plateau_start = PlateauStart(trainer)
        check_extent(trainer, pl_module, self.stream, self.limit, resumed=self._saved is not None)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember a module that was trained on a part of the stream."""
        remember_extent(trainer, pl_module, self.stream, self.limit)
        self._frozen.take(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up what a checkpoint left open; refuse another loader than an online stream's own."""
        if self.stream.online:
            scenario = type(self.stream.scenario).__name__
            refuse_other_loader(scenario, self.stream, trainer.train_dataloader, self.stream._train_loader)
        refuse_unplanned_loader(trainer, self.stream)
        if self._saved is not None:
            trainer.callback_metrics.update(self._saved["metrics"])
            trainer.should_stop |= self._saved["stop_task"] and self.stream.early_stopping == "task"
            if self._saved["plateau_due"]:
                step_plateau_schedulers(trainer, pl_module)
        self.resumed_epoch = None
        now = self.stream.num_validated_tasks
        reload_data(trainer, self.stream.loaded.get("val", now) != now, in_any_epoch=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a task in its first epoch."""
        # A new epoch is no restart of the last one; with `max_steps` Lightning would take it for one.
        end_restart(trainer.fit_loop.epoch_loop)
        self.restore_random_states(trainer)
        if trainer.should_stop and self.stream.early_stopping == "task":
            self._stop_task(trainer)
        task = self.stream.task
        if task.index > self.started:
            self._start_task(trainer, pl_module, task)
        # Lightning asks for validation data only when told so; it is due when the seen tasks have grown.
        reload_data(trainer, self.stream.loaded.get("val") != self.stream.num_validated_tasks)

    def _start_task(self, trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
        if task.index > self.started + 1:
            raise ValueError(
                f"epoch {trainer.current_epoch} belongs to task {task.index}, but task {self.started + 1} was never "
                "started: this Trainer has run before, on other data. Use a new Trainer for every stream."
            )
        self.started = self.stream.last_task = task.index
        if self.stream.online:
            self.stream.expose(task.index, None)
        compare_within_the_task(trainer)
        call_task_hook(trainer, pl_module, "on_task_start", task)
        if task.index > 0 and resets_optimizer(pl_module):
            build_fresh_optimizers(trainer)
        elif task.index > 0 and self.stream.reduce_on_plateau == "task":
            self._plateau_start.restore(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember the batch, for its weight, and tell which classes may be answered from here on."""
        self._batch_idx = batch_idx
        if self._checked < self.stream.task_index and class_readers(trainer):
            self._checked = self.stream.task_index
            self.stream.check_labels(batch, batch_idx, moved=changes_batches(trainer))
        self._hand_out(trainer, batch_idx)
        if self.stream.online and self.stream.expose(self.stream.task_index, batch_idx):
            call_task_hook(trainer, pl_module, "on_exposure", self.stream.exposed_classes)
        if getattr(getattr(pl_module, "continual", None), "train_mask", None) == "batch":
            pl_module.continual.mask.allow_train(self.stream.train_classes(batch_idx))  # type: ignore[union-attr,operator]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watch the loss, and end a task after its last batch."""
        self._hand_out(trainer, batch_idx)  # more than before, where a module takes its batches by itself
        self.stream.joined, task = None, self.stream.task
        due = self._loss.update(outputs, trainer.global_step)
        if trainer.world_size > 1:
            due = trainer.global_step % STEPS_BETWEEN_CHECKS == 1  # in all at once
        ends = trainer.is_last_batch and trainer.current_epoch == task.last_epoch and task.index > self.ended
        if due or ends:
            self._loss.check(trainer, task)
        if ends:
            check_weights(trainer, pl_module, task)
            self.ended = task.index
            call_task_hook(trainer, pl_module, "on_task_end", task)

    def _hand_out(self, trainer: Trainer, batch_idx: int) -> None:
        if self.stream._train_loader is not None:
            self.stream._train_loader.hand_out(trainer.current_epoch, batch_idx + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue with the checkpoint's random states, if it owed a validation."""
        if self._saved is not None and not trainer.sanity_checking:
            # Undo the mark of an interrupted validation, or the next checkpoint would have it too.
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()
            self.restore_random_states(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reload the training data when the next epoch is of another task."""
        self.restore_random_states(trainer)
        # Lightning spares plateau schedulers after a restart, for want of metrics; here they were saved.
        end_restart(trainer.fit_loop)
        self._loss.check(trainer, self.stream.task)
        following = self.stream.schedule.task_at(trainer.current_epoch + 1)
        reload_data(trainer, self.stream.loaded.get("train") != following)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put frozen weights back that an average of them, rounded, has replaced."""
        self._frozen.restore()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Make DDP's mean over the ranks the mean over the global batch, when the ranks' shares differ."""
        weight = 1.0 if trainer.world_size == 1 else self.stream.train_weight(self._batch_idx)
        if weight != 1.0 and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * weight)

    def _stop_task(self, trainer: Trainer) -> None:
        """A stop was asked for in the epoch before this one: let this epoch be the task's last."""
        trainer.should_stop = False
        task, epoch = self.stream.task, trainer.current_epoch
        if task.first_epoch < epoch < task.last_epoch:
            done = epoch - task.first_epoch + 1
            rank_zero_info(f"Task {task.index} stops early, after epoch {done} of {task.epochs}.")
            self.stream.shorten(task.index, done)
            self.fit_schedule(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the random states of all ranks and where the run stands; refuse to save after a bad step."""
        self._loss.check(trainer, self.stream.task)
        check_weights(trainer, pl_module, self.stream.task)
        checkpoint["lightning_cl"] = {
            "version": 1,
            "started": self.started,
            "ended": self.ended,
            "random_states": random_states_of_all(trainer),
            "metrics": {k: v.detach().cpu() for k, v in trainer.callback_metrics.items() if isinstance(v, Tensor)},
            "stop_task": bool(trainer.should_stop),
            **what_is_due(trainer),
            "info": self.stream.info.state_dict(),
            "methods": method_keys(trainer),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the boundary counters now, and the rest when training goes on."""
        if trainer.state.fn != "fit":
            return
        saved = checkpoint.get("lightning_cl")
        if saved is None:
            raise ValueError(
                "the checkpoint was not made on a stream of lightning_cl, so the position in the stream is unknown; "
                "load its weights with `model.load_state_dict(torch.load(path)['state_dict'])` and start anew."
            )
        check_version(saved, 1, "the run")
        check_callback_versions(checkpoint.get("callbacks", {}), {c.state_key: c for c in callbacks_of(trainer)})
        self._saved, trainer.num_sanity_val_steps = saved, 0
        self.started, self.ended = int(saved["started"]), int(saved["ended"])
        settle_position(checkpoint["loops"]["fit_loop"], saved["validation_due"], saved.get("cut_short", False))
        self.resumed_epoch = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"])

    def restore_random_states(self, trainer: Trainer) -> None:
        """Continue with the checkpoint's; called where a resumed run first does what it would have done next."""
        if self._saved is not None:
            states = self._saved["random_states"]
            rank = trainer.global_rank if trainer.global_rank < len(states) else 0
            set_random_states(states[rank], trainer.strategy.root_device)
            self._saved = None
