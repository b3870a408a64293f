"""Lets a module build its network before the callbacks look at it, which Lightning does the other way round."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_cl.namespace import Callback, LightningModule, Trainer, is_overridden, reset_seed

#: Hooks in which a module may build its network, in Lightning's order.
_BUILDING = ("setup", "configure_model")


class ModuleSetup(Callback):
    """Calls ``setup`` and ``configure_model`` of the module before the ``setup`` of all other callbacks, each once.

    So methods attach to a network that is made there, for example from ``self.trainer.datamodule.num_classes``. Both
    come before the checkpoint is read and before DDP and the optimisers are set up, as always. A module whose
    ``setup`` looks at what the methods made of it says so with ``attach_before_setup = True``.
    """

    def __init__(self) -> None:
        self._called: list[str] = []

    @classmethod
    def install(cls, callbacks: list[Callback], module: LightningModule) -> None:
        """Put one in front, in place; none for a module that is built when it is made."""
        callbacks[:] = [c for c in callbacks if not isinstance(c, cls)]
        built_before = getattr(module, "attach_before_setup", False)
        if not built_before and any(is_overridden(name, module) for name in _BUILDING):
            callbacks.insert(0, cls())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Call the module's hooks, as Lightning would, and let Lightning's own next calls do nothing."""
        self._forget(pl_module)
        if stage == "fit":
            reset_seed()  # to what `seed_everything` said, as for what the methods draw
        if is_overridden("setup", pl_module):
            pl_module.setup(stage=stage)
            self._skip_next(pl_module, "setup")
        if is_overridden("configure_model", pl_module):
            strategy, precision = trainer.strategy, trainer.precision_plugin
            with strategy.tensor_init_context(), strategy.model_sharded_context(), precision.module_init_context():
                pl_module.configure_model()
            self._skip_next(pl_module, "configure_model")

    def _skip_next(self, module: LightningModule, name: str) -> None:
        vars(module)[name] = partial(_skip, module, name)
        self._called.append(name)

    def _forget(self, module: LightningModule) -> None:
        for name in self._called:
            vars(module).pop(name, None)
        self._called = []

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module's hooks."""
        self._forget(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module's hooks."""
        self._forget(pl_module)


def _skip(module: LightningModule, name: str, *args: Any, **kwargs: Any) -> None:
    """In the place of a hook that was called already, once."""
    vars(module).pop(name, None)
