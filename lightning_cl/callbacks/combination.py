"""Which methods can work on one module together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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
    idle = [type(other).__name__ for other in methods if not other.trains]
    if idle and (method.constrains or method.adds_loss):
        raise ValueError(
            f"{type(method).__name__} changes how the model is trained, but {idle[0]} trains nothing, so it would have "
            "no effect; leave out one of the two."
        )
