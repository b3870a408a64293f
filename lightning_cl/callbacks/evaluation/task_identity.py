"""Says whether a run is task-incremental: a method is told the task of every evaluation sample."""

from __future__ import annotations

from typing import Any

#: What a reader of the accuracies must know.
TOLD = "task-incremental: the task of each test sample is given"


def is_told(stream: Any, pl_module: Any) -> bool:
    """Whether the stream tells the task of evaluation samples and a method of the module answers by it."""
    parts = getattr(getattr(pl_module, "continual", None), "parts", {})
    return bool(stream.task_identity) and any(getattr(part, "takes_task", False) for part in parts.values())
