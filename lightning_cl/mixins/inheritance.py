"""Lets an author inherit a mixin: ``class MyModel(PromptMixin, LightningModule)``.

Added to a live module, a mixin stands in front of the module's class, so its hooks run first and call the module's.
Inherited, it stands behind: there the author's own ``training_step`` would hide the mixin's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

#: Hooks that LightningModule leaves to the author, who therefore has nothing to call with ``super()``.
AUTHORS_HOOKS = ("training_step", "configure_optimizers", "on_before_optimizer_step")


def put_mixins_first(cls: Any, base: type) -> None:
    """Let the mixins' ``training_step`` and ``configure_optimizers`` run before the author's, as ``extend`` does.

    Args:
        cls: A new class; only a LightningModule's is changed, a mixin is left alone.
        base: The base of all mixins.

    Raises:
        TypeError: If another hook of the class hides a mixin's because it does not call ``super()``.
    """
    if not issubclass(cls, nn.Module):
        return
    mixins = [c for c in cls.__mro__ if issubclass(c, base) and not issubclass(c, nn.Module)]
    for name, own in list(vars(cls).items()):
        hidden = next((mixin for mixin in mixins if name in vars(mixin)), None)
        if hidden is None or not inspect.isfunction(own) or _calls_super(own):
            continue
        if name not in AUTHORS_HOOKS:
            raise TypeError(
                f"`{cls.__name__}.{name}` hides `{hidden.__name__}.{name}`; call `super().{name}(...)` in it."
            )
        setattr(cls, f"_own_{name}", own)
        setattr(cls, name, _mixins_hook(cls, name, own))


def own_hook(module: Any, behind: Any, name: str) -> Callable[..., Any]:
    """Find the hook behind a mixin's: the author's own, or the next in line (``behind`` is the mixin's ``super()``)."""
    hook: Callable[..., Any] = getattr(module, f"_own_{name}", None) or getattr(behind, name)
    return hook


def _mixins_hook(cls: Any, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)  # Lightning passes `batch_idx` only to a step whose signature takes it
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(cls, self), name)(*args, **kwargs)

    return hook


def _calls_super(function: Callable[..., Any]) -> bool:
    return "super" in inspect.unwrap(function).__code__.co_names
