"""Which methods need to be told where a task ends, and which learn their features in the first."""

from __future__ import annotations

from typing import Any


def check_boundaries(stream: Any, who: str, does: str, advice: str) -> None:
    """Refuse an online stream to a method that does something once a task has ended.

    Args:
        stream: The Trainer's.
        who: The method.
        does: What it does, as a sentence goes on.
        advice: What to use instead of a scenario with tasks.

    Raises:
        ValueError: If samples arrive once, in a fixed order.
    """
    if stream.online:
        raise ValueError(
            f"{who} {does} when a task ends, but in a stream of one ordered pass nobody tells where that is; use a "
            f"scenario with tasks, or {advice}."
        )


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
