"""Lets the hooks of a module run before the checkpoints are written, which Lightning does the other way round."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_cl.namespace import Callback, Checkpoint, LightningModule, Trainer, is_overridden

#: Hooks in which callbacks save and that Lightning calls on the module only afterwards.
_SAVED_IN = ("on_train_batch_end", "on_validation_end")


class ModuleHooks(Callback):
    """Calls hooks of the module behind those of all callbacks but the ones that save, each of them once.

    So what a module changes there, as an average of its weights, is in the file, and a resumed run goes on from it.
    """

    def __init__(self) -> None:
        self._called: set[str] = set()  # of this batch or validation, until Lightning has called it, too
        self._wrapped: list[str] = []

    @classmethod
    def install(cls, callbacks: list[Callback]) -> None:
        """Put one before the callbacks that save, in place; none where nothing is saved."""
        callbacks[:] = [c for c in callbacks if not isinstance(c, cls)]
        saving = [i for i, callback in enumerate(callbacks) if isinstance(callback, Checkpoint)]
        if saving:
            callbacks.insert(saving[0], cls())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the hooks that the module's class has."""
        free = [name for name in _SAVED_IN if is_overridden(name, pl_module) and name not in vars(pl_module)]
        for name in free:
            setattr(pl_module, name, _CalledOnce(pl_module, name, self._called))
        self._wrapped = free

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call the module's."""
        self._call(pl_module, "on_train_batch_end", outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Call the module's."""
        self._call(pl_module, "on_validation_end")

    def _call(self, pl_module: LightningModule, name: str, *args: Any) -> None:
        if name in self._wrapped:
            self._called.discard(name)
            getattr(pl_module, name)(*args)
            self._called.add(name)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module's hooks."""
        for name in self._wrapped:
            delattr(pl_module, name)
        self._called, self._wrapped = set(), []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module's hooks."""
        self.teardown(trainer, pl_module, "fit")


class _CalledOnce:
    """In the place of a module's hook: calls it, unless it was called for this event. Copies and pickles are without.

    Args:
        module: Whose hook.
        name: Which hook.
        called: Names of hooks that were called already.
    """

    def __init__(self, module: LightningModule, name: str, called: set[str]) -> None:
        self.module, self.name, self.called = module, name, called

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.name in self.called:
            self.called.discard(self.name)
            return None
        return _own_hook(self.module, self.name)(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _own_hook, (self.module, self.name)


def _own_hook(module: LightningModule, name: str) -> Any:
    return partial(getattr(type(module), name), module)
