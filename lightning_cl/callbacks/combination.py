"""Which methods can work on one module together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cl.mixins.replay import ReplayMixin


def check_combination(method: Any, methods: Sequence[Any]) -> None:
    """Check that ``method`` stands once among the Trainer's methods, and that no two want the same for themselves.

    Raises:
        ValueError: Names the methods.
    """
    same = [type(other).__name__ for other in methods if other.state_key == method.state_key]
    if len(same) > 1:
        raise ValueError(
            f"the Trainer's callbacks have {' and '.join(same)}, but a module takes a method once (`state_key` "
            f"{method.state_key!r}); leave all but one out, or give a class of your own another `state_key`."
        )
    heads = [type(other).__name__ for other in methods if other.replaces_head]
    if len(heads) > 1:
        raise ValueError(
            f"{' and '.join(heads)} each make the logits in their own way, which cannot be combined; use one of them."
        )
    adapting = [type(other).__name__ for other in methods if other.adapts_backbone]
    if len(adapting) > 1:
        raise ValueError(
            f"{' and '.join(adapting)} each freeze the backbone and put parameters of their own into it, which cannot "
            "be combined; use one of them."
        )
    owners = [type(other).__name__ for other in methods if other.owns_weights]
    if len(owners) > 1:
        raise ValueError(
            f"{' and '.join(owners)} each decide which task a weight belongs to, which cannot be combined; use one of "
            "them."
        )
    _check_what_stays(methods, owners)
    idle = [type(other).__name__ for other in methods if not other.trains]
    if idle and (method.constrains or method.adds_loss):
        raise ValueError(
            f"{type(method).__name__} changes how the model is trained, but {idle[0]} trains nothing, so it would have "
            "no effect; leave out one of the two."
        )


def _check_what_stays(methods: Sequence[Any], owners: Sequence[str]) -> None:
    """What earlier tasks learned must not be changed beside a method that keeps it bit for bit."""
    rewriting = [type(other).__name__ for other in methods if other.rewrites_weights]
    if owners and rewriting:
        raise ValueError(
            f"{owners[0]} keeps what earlier tasks learned bit for bit, but {rewriting[0]} changes the weights of all "
            "tasks at once; leave out one of the two."
        )
    told = [type(other).__name__ for other in methods if other.needs_task_identity]
    making = [type(other).__name__ for other in methods if other.replaces_head and not other.needs_task_identity]
    if told and making:
        raise ValueError(
            f"{told[0]} keeps a head for each task, but {making[0]} makes the logits of all classes itself; leave out "
            "one of the two."
        )
    replaying = remembering(methods)
    if told and replaying:
        raise ValueError(
            f"{told[0]} keeps a head for each task, but {replaying[0]} would train those of earlier tasks on the "
            "features of the current one; leave out one of the two."
        )


def remembering(callbacks: Sequence[Any]) -> list[str]:
    """Names of the methods among callbacks that repeat samples of earlier tasks."""
    return [type(other).__name__ for other in callbacks if issubclass(getattr(other, "mixin", object), ReplayMixin)]
