"""Which streams have a base session, in which few-shot methods learn their features."""

from __future__ import annotations

from typing import Any

from lightning_cl.callbacks.boundaries import check_boundaries


def check_base_session(stream: Any, who: str) -> None:
    """Check that the first task of a stream can be the base session of all others.

    Args:
        stream: The Trainer's.
        who: The method.

    Raises:
        ValueError: If samples arrive once, in a fixed order, or a later task holds more classes than the first.
    """
    check_boundaries(stream, who, "ends its base session", "a method that needs no base session")
    first, *later = (len(classes) for classes in stream.info.classes_per_task)
    if max(later, default=0) > first:
        raise ValueError(
            f"{who} learns its features in the base session, the first task, but the first task of this stream has "
            f"{first} classes and a later one {max(later)}; use the scenario `FewShot`, or put the task with the most "
            "classes first."
        )
