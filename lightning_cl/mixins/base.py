"""The base of all mixins: class masks on the head, loss terms, protected slices, and the task hooks of a module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_cl.datamodules.stream_identity import difference, is_prefix
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.mixins.averages import CURRENT, keep_methods_state, own_buffers
from lightning_cl.mixins.head import HeadMixin
from lightning_cl.mixins.inheritance import own_hook, put_mixins_first
from lightning_cl.mixins.state import STRICTNESS, ContinualState, TrainMask
from lightning_cl.mixins.step import StepMixin
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.guard import Guard, whole
from lightning_cl.training.batch import takes_names
from lightning_cl.training.evaluation_mode import expect_eval_mode
from lightning_cl.training.optimizers import hand_over, optimizers_in
from lightning_cl.training.state_growth import grow_optimizer_state, grow_state, rename_former_keys
from lightning_cl.training.task_data import TaskData
from lightning_cl.versions import check_version

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task

__all__ = ["STRICTNESS", "ContinualMixin", "ContinualState", "TrainMask", "expect_eval_mode", "method_names"]


class ContinualMixin(StepMixin):
    """What every continual LightningModule does; methods build on it and call ``super()``.

    A model author may inherit it, as in ``class MyModel(ContinualMixin, LightningModule)``, and call
    :meth:`configure_continual` in ``setup``; a callback adds it to a live module with :func:`~lightning_cl.extend`.
    """

    continual: ContinualState

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_extended_from" not in cls.__dict__:
            put_mixins_first(cls, HeadMixin)

    def configure_continual(
        self,
        info: StreamInfo,
        *,
        head: str | None = None,
        train_mask: TrainMask = "all",
        reset_optimizer: bool = False,
        needs_head: bool = True,
    ) -> None:
        """Find the head and put the class mask on it; with several methods the strictest setting wins.

        Args:
            info: The stream.
            head: Dotted path of the head; found when ``None``.
            train_mask: Which classes compete in the training loss.
            reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.
            needs_head: ``False``: without a head that is found or named, do without one, and mask nothing.

        Raises:
            ValueError: If the head cannot be found or is too small, or the module has another ``continual``.
        """
        state = getattr(self, "continual", None)
        if state is None:
            own = frozenset(name for name, _ in self.named_parameters())
            buffers = frozenset(name for name, _ in self.named_buffers())
            self.continual = state = ContinualState(info)
            state.own_parameters, state.own_buffers = own, buffers
            state.takes_names = takes_names(self.forward)
            self.register_load_state_dict_pre_hook(rename_former_keys)  # type: ignore[no-untyped-call]
        elif not isinstance(state, ContinualState):
            raise ValueError("the module has an attribute `continual` of its own, which lightning_cl needs; rename it.")
        if state.head_path is None:
            self._take_head(info, head, needs_head)
        elif head is not None and head != state.head_path:
            raise ValueError(
                f"`head={head!r}`, but another method took the head `{state.head_path}`; name the same one."
            )
        state.info = info
        state.train_mask = max(state.train_mask, train_mask, key=STRICTNESS.index)
        state.reset_optimizer = state.reset_optimizer or reset_optimizer

    # ------------------------------------------------------------------ task hooks of a module

    def on_task_start(self, task: Task) -> None:
        """Called before the first batch of ``task``, and before fresh optimisers are built."""
        state = self.continual
        state.choice.current = task.index
        for part in state.ordered_parts:
            part.start_task(self, task)
        send_from_first_process(state.parts.parameters())
        if task.order == "stream":  # its classes are exposed as they arrive
            self._allow(task.old_classes)
        elif state.train_mask == "task" and state.memory is None and not state.replays:
            state.mask.allow(task.classes, task.seen_classes)
        else:
            self._allow(task.seen_classes)
        _call_users_hook(super(), "on_task_start", task)
        self.protect()

    def on_exposure(self, classes: tuple[int, ...]) -> None:
        """Called in an online stream before the first batch that holds a new class.

        ``train_mask`` ``"task"`` and ``"seen"`` both mean the exposed classes there: nobody tells where a task ends.

        Args:
            classes: All classes that have arrived, this batch's included.
        """
        for part in self.continual.ordered_parts:
            part.expose(self, classes)
        self._allow(classes)
        _call_users_hook(super(), "on_exposure", classes)
        self.protect()

    def _allow(self, seen: Sequence[int]) -> None:
        self.continual.mask.allow(None if self.continual.train_mask == "all" else seen, seen)

    def on_task_end(self, task: Task) -> None:
        """Called after the last batch of ``task``, before the boundary is evaluated."""
        for part in self.continual.ordered_parts:
            part.end_task(self, TaskData(self, task))
        _call_users_hook(super(), "on_task_end", task)

    # ------------------------------------------------------------------ protected slices

    def protected_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters with the rows (or elements) that must not move in the current task; mixins add theirs."""
        state = self.continual
        if not all(part.trains_now() for part in state.ordered_parts):
            # Momentum and weight decay would move them without a gradient.
            yield from whole(p for p in self.parameters() if p.requires_grad)
            return
        frozen = (~state.mask.train_allowed).nonzero().flatten()
        # Not of a mask that changes with every batch, nor of a head that is not trained.
        if len(frozen) and state.train_mask != "batch":
            yield from self.head_rows(frozen)
        for part in state.ordered_parts:
            yield from part.protected(self)

    def protect(self) -> None:
        """Take the protected rows as they are now; from here on they stay, whatever an optimiser does."""
        self.continual.guards = [Guard(parameter, rows) for parameter, rows in self.protected_rows()]

    def _after_optimizer_step(self, optimizer: Any, *_: Any) -> None:
        for part in self.continual.ordered_parts:
            part.after_step(self, optimizer)
        self.restore_protected()

    def restore_protected(self) -> None:
        """Put the protected rows back, after weights were changed by other means than an optimiser of the Trainer."""
        for guard in self.continual.guards:
            guard.restore()

    def configure_optimizers(self) -> Any:
        """The user's optimisers; protected rows are put back after each of their steps."""
        configured = own_hook(self, super(), "configure_optimizers")()
        optimizers = list(optimizers_in(configured))
        own = self.continual.own_parameters
        hand_over(optimizers, (p for name, p in self.named_parameters() if p.requires_grad and name not in own))
        for optimizer in optimizers:
            if optimizer.__dict__.get("_restores_rows_of") is not self:  # the module may hand out the same one again
                optimizer.__dict__["_restores_rows_of"] = self
                optimizer.register_step_post_hook(self._after_optimizer_step)
                optimizer.register_load_state_dict_post_hook(partial(grow_optimizer_state, self))
        return configured

    def on_fit_start(self) -> None:
        """Refuse to train what callbacks attached without a stream: masks and counters would stand in the last task."""
        state = self.continual
        if state.methods and not hasattr(getattr(self.trainer, "datamodule", None), "info"):
            raise ValueError(
                f"this {type(self).__name__} carries {method_names(state.methods)}, but the Trainer was given no "
                "stream; train a fresh module, or pass `datamodule=ContinualDataModule(source, scenario)`. To evaluate "
                "what was learned, `validate` and `test` take plain loaders, and "
                "`lightning_cl.restore(checkpoint, model, callbacks)` opens a checkpoint."
            )
        super().on_fit_start()

    def on_train_start(self) -> None:
        """Protect what a checkpoint brought back."""
        for part in self.continual.ordered_parts:
            part.start_run(self)
        self.protect()
        super().on_train_start()

    # ------------------------------------------------------------------ checkpoints and averages of weights

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers of the user's module, without those in which methods keep what they know; see ``named_buffers``."""
        return own_buffers(self, getattr(self, "continual", None), recurse)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the methods know as it is, also beside averaged weights."""
        super().on_save_checkpoint(checkpoint)
        keep_methods_state(self, self.continual, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another method or stream before any weight is touched."""
        super().on_load_checkpoint(checkpoint)
        saved, info, methods = checkpoint.get("lightning_cl", {}), self.continual.info, self.continual.methods
        check_version(saved, 1, "the run")
        if saved.get("methods", methods) != methods:
            raise ValueError(
                f"the checkpoint was made with {method_names(saved['methods'])}, but this module has "
                f"{method_names(methods)}; use the callbacks that the checkpoint was made with, in the same order."
            )
        before = StreamInfo.from_state_dict(saved["info"]) if "info" in saved else info
        if not is_prefix(before, info):
            raise ValueError(f"{difference(before, info)} Use the same source, scenario and seed.")
        if before.fingerprint != info.fingerprint:  # the stream was extended
            for key in ("state_dict", CURRENT):
                if key in checkpoint:
                    state_dict = dict(checkpoint[key])
                    rename_former_keys(self, state_dict, "")
                    checkpoint[key] = grow_state(self, state_dict)


def method_names(state_keys: list[str]) -> str:
    """``CODAPrompt + VirtualOutlierRegularizer`` from state keys."""
    return " + ".join(key.removeprefix("lightning_cl.") for key in state_keys) or "no method"


def _call_users_hook(behind: Any, name: str, what: Task | tuple[int, ...]) -> None:
    """A module may have task hooks of its own, and the mixin stands in front of them."""
    hook = getattr(behind, name, None)
    if callable(hook):
        hook(what)
