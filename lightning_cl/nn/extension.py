"""``extend``: give a live module a mixin, in front of its own class."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn


def extend(module: nn.Module, mixin: type) -> None:
    """Give ``module`` a new class: ``mixin`` before its own class, so that the mixin's methods run first.

    The instance, its parameters and its parameter names stay the same; ``copy.deepcopy`` and ``pickle`` work. Several
    mixins stack: the last one added runs first. A module that has the mixin already is left alone. It is the technique
    of ``torch.nn.utils.parametrize``.

    Args:
        module: Any live module.
        mixin: An ordinary class that overrides methods and calls ``super()``.
    """
    if not isinstance(module, mixin):
        base: type = type(module)
        module.__class__ = _extended_class(mixin, base)
        if hasattr(mixin, "training_step") and "training_step" in vars(module):
            # A step of the instance, as `torch.compile(module)` and Lightning make one, would hide the mixin's.
            vars(module)["_own_training_step"] = vars(module).pop("training_step")


class _Unannounced:
    """Stands before the user's class: an extended one is the same class to it, no subclass to be registered."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Called by the mixins' own; ends here."""


@functools.cache
def _extended_class(mixin: type, base: type) -> type:
    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        # As of a local class: whoever looks a class up by its name (jsonargparse does) must find the user's.
        "__qualname__": f"extend.<locals>.{base.__name__}",
        "__doc__": base.__doc__,
        "_extended_from": (base, mixin),
        "__reduce_ex__": _reduce,
    }
    bases = (mixin, base) if issubclass(base, _Unannounced) else (mixin, _Unannounced, base)
    cls: Any = type(base.__name__, bases, namespace)
    # Lightning passes `batch_idx` only to a step whose signature takes it; `torch.export` names a forward's inputs.
    if hasattr(base, "training_step"):
        cls.training_step = _with_own_signature(cls, "training_step", base)
    if "forward" in vars(mixin):
        cls.forward = _with_own_signature(cls, "forward", base)
    return cls  # type: ignore[no-any-return]


def _with_own_signature(cls: Any, name: str, base: Any) -> Any:
    """The mixin's method, with the signature of the user's."""

    @functools.wraps(inspect.unwrap(getattr(base, name)))
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(cls, self), name)(*args, **kwargs)

    return method


def _origin(cls: type) -> tuple[type, tuple[type, ...]]:
    """The user's class and the mixins that were added to it, in order."""
    mixins: list[type] = []
    while "_extended_from" in cls.__dict__:
        cls, mixin = cls.__dict__["_extended_from"]
        mixins.insert(0, mixin)
    return cls, tuple(mixins)


def _rebuild(cls: Any, mixins: tuple[type, ...]) -> Any:
    module = cls.__new__(cls)
    for mixin in mixins:
        extend(module, mixin)
    return module


def _reduce(self: Any, protocol: Any) -> Any:
    cls, mixins = _origin(type(self))
    reduced = object.__reduce_ex__(self, protocol)
    return (_rebuild, (cls, mixins), *reduced[2:])
