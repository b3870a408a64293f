"""Which methods need to be told where a task ends."""

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
