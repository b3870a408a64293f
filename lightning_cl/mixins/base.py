"""The base of all mixins: class masks on the head, loss terms, protected slices, and the task hooks of a module."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_cl.datamodules.prefix import difference, is_prefix
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.mixins.authoring import own_hook, put_mixins_first
from lightning_cl.mixins.finding import find_head
from lightning_cl.mixins.growing import grow_optimizer_state, grow_state
from lightning_cl.mixins.optimizers import hand_over, optimizers_in
from lightning_cl.mixins.state import STRICTNESS, ContinualState, TrainMask
from lightning_cl.nn.guard import SliceGuard
from lightning_cl.nn.masks import ClassMask
from lightning_cl.versions import check_version

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base

    from lightning_cl.datamodules.task import Task
else:
    _Base = object

__all__ = ["STRICTNESS", "ContinualMixin", "ContinualState", "TrainMask", "expect_eval_mode", "method_names"]


class ContinualMixin(_Base):
    """What every continual LightningModule does; methods build on it and call ``super()``.

    A model author may inherit it, as in ``class MyModel(ContinualMixin, LightningModule)``, and call
    :meth:`configure_continual` in ``setup``; a callback adds it to a live module with :func:`~lightning_cl.extend`.
    """

    continual: ContinualState

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_extended_from" not in cls.__dict__:
            put_mixins_first(cls, ContinualMixin)

    def configure_continual(
        self,
        info: StreamInfo,
        *,
        head: str | None = None,
        train_mask: TrainMask = "all",
        reset_optimizer: bool = False,
    ) -> None:
        """Find the head and put the class mask on it; with several methods the strictest setting wins.

        Args:
            info: The stream.
            head: Dotted path of the head; found when ``None``.
            train_mask: Which classes compete in the training loss.
            reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

        Raises:
            ValueError: If the head cannot be found or is too small, or the module has another ``continual``.
        """
        state = getattr(self, "continual", None)
        if state is None:
            path, layer = find_head(self, info.num_classes, head)
            mask = ClassMask(layer.out_features).to(layer.weight.device)
            own = frozenset(name for name, _ in self.named_parameters())
            self.continual = state = ContinualState(info, path, mask)
            state.own_parameters = own
            layer.register_forward_hook(mask.hook)
        elif not isinstance(state, ContinualState):
            raise ValueError("the module has an attribute `continual` of its own, which lightning_cl needs; rename it.")
        elif head is not None and head != state.head_path:
            raise ValueError(
                f"`head={head!r}`, but another method took the head `{state.head_path}`; name the same one."
            )
        state.info = info
        state.train_mask = max(state.train_mask, train_mask, key=STRICTNESS.index)
        state.reset_optimizer = state.reset_optimizer or reset_optimizer

    @property
    def continual_head(self) -> nn.Linear:
        """The layer that makes the class logits."""
        layer = self.get_submodule(self.continual.head_path)
        assert isinstance(layer, nn.Linear)
        return layer

    def head_input(self, inputs: Any) -> Tensor:
        """``(B, D)`` features that reach the head when the module's ``forward`` is called with ``inputs``.

        Raises:
            ValueError: If there is no ``forward``, or it does not call the head.
        """
        captured: list[Tensor] = []
        hook = self.continual_head.register_forward_pre_hook(lambda _, given: captured.append(given[0]))
        try:
            self(inputs)
        except NotImplementedError as error:
            raise ValueError(
                f"`{type(self).__name__}` has no `forward`, through which features are read; define "
                "`forward(self, images)` to return the class logits."
            ) from error
        finally:
            hook.remove()
        if not captured:
            raise ValueError(
                f"the head `{self.continual.head_path}` was not called by `{type(self).__name__}.forward`, so there "
                'are no features; name the layer that forward uses with `head="..."`.'
            )
        return captured[-1].flatten(1)

    # ------------------------------------------------------------------ task hooks of a module

    def on_task_start(self, task: Task) -> None:
        """Called before the first batch of ``task``, and before fresh optimisers are built."""
        state = self.continual
        if task.order == "stream":  # its classes are exposed as they arrive
            self._allow([c for c in task.seen_classes if c not in task.new_classes])
        elif state.train_mask == "task" and not state.replays:
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
        self._allow(classes)
        _call_users_hook(super(), "on_exposure", classes)
        self.protect()

    def _allow(self, seen: Sequence[int]) -> None:
        self.continual.mask.allow(None if self.continual.train_mask == "all" else seen, seen)

    def on_task_end(self, task: Task) -> None:
        """Called after the last batch of ``task``, before the boundary is evaluated."""
        _call_users_hook(super(), "on_task_end", task)

    # ------------------------------------------------------------------ protected slices

    def protected_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters with the rows that must not move in the current task; mixins add theirs."""
        frozen = (~self.continual.mask.train_allowed).nonzero().flatten()
        if len(frozen) and self.continual.train_mask != "batch":  # which changes with every batch
            yield self.continual_head.weight, frozen
            if self.continual_head.bias is not None:
                yield self.continual_head.bias, frozen

    def protect(self) -> None:
        """Take the protected rows as they are now; from here on they stay, whatever an optimiser does."""
        self.continual.guards = [SliceGuard(parameter, rows) for parameter, rows in self.protected_rows()]

    def _restore_protected(self, *_: Any) -> None:
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
                optimizer.register_step_post_hook(self._restore_protected)
                optimizer.register_load_state_dict_post_hook(partial(grow_optimizer_state, self))
        return configured

    def on_train_start(self) -> None:
        """Protect what a checkpoint brought back."""
        self.protect()
        super().on_train_start()

    # ------------------------------------------------------------------ loss terms

    def add_loss(self, name: str, value: Tensor) -> None:
        """Add a scalar to the loss of the current training step; it is logged as ``name``."""
        self.continual.loss_terms[name] = value

    def collect_losses(self) -> None:
        """Called after the user's step; mixins call :meth:`add_loss` here for terms that arose in the forward pass."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The user's step, with the methods' loss terms added to what it returns."""
        self.continual.loss_terms.clear()
        output: Any = own_hook(self, super(), "training_step")(*args, **kwargs)
        self.collect_losses()
        terms = dict(self.continual.loss_terms)
        self.continual.loss_terms.clear()
        if not terms or output is None:
            return output
        self.log_dict({name: value.detach() for name, value in terms.items()})
        total = torch.stack(list(terms.values())).sum()
        if isinstance(output, dict):
            return {**output, "loss": output["loss"] + total}
        return output + total

    # ------------------------------------------------------------------ evaluation images

    def expect_images(self, batch_idx: int, stage: str) -> None:
        """The next pass is over ``stream.eval_batch(batch_idx, stage)``; mixins with caches tell them."""

    def forget_images(self) -> None:
        """The next pass is over images that nobody announced."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Announce the batch's images."""
        super().on_validation_batch_start(batch, batch_idx, dataloader_idx)
        self.expect_images(batch_idx, "val")

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Announce the batch's images."""
        super().on_test_batch_start(batch, batch_idx, dataloader_idx)
        self.expect_images(batch_idx, "test")

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Forget the announcement."""
        self.forget_images()
        super().on_validation_batch_end(outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Forget the announcement."""
        self.forget_images()
        super().on_test_batch_end(outputs, batch, batch_idx, dataloader_idx)

    # ------------------------------------------------------------------ checkpoints

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
            checkpoint["state_dict"] = grow_state(self, checkpoint["state_dict"])


def expect_eval_mode() -> None:
    """Frozen parts stay in eval mode on purpose; Lightning's warning about it would only alarm."""
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")


def method_names(state_keys: list[str]) -> str:
    """``CODAPrompt + VirtualOutlierRegularizer`` from state keys."""
    return " + ".join(key.removeprefix("lightning_cl.") for key in state_keys) or "no method"


def _call_users_hook(behind: Any, name: str, what: Task | tuple[int, ...]) -> None:
    """A module may have task hooks of its own, and the mixin stands in front of them."""
    hook = getattr(behind, name, None)
    if callable(hook):
        hook(what)
