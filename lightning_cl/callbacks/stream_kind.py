"""Which streams a method is made for: labelled or not, with requests to forget, with the task told."""

from __future__ import annotations

from typing import Any, Literal

#: What a method learns from: labelled tasks, or tasks some of which ask to forget classes or have no labels.
StreamKind = Literal["labelled", "forget", "unlabelled"]


def check_stream_kind(method: Any, stream: Any) -> None:
    """Check that a stream gives what a method needs.

    Raises:
        ValueError: If it asks to forget nothing, has labels everywhere, lacks labels, or does not tell the task of
            evaluation samples, and the method is not for it.
    """
    name, scenario, blind = type(method).__name__, type(stream.scenario).__name__, stream.info.unlabelled_tasks
    if method.stream_kind == "forget" and not stream.info.forgets_per_task:
        raise ValueError(
            f"{name} forgets classes on request, but this stream ({scenario}) asks to forget nothing; use the scenario "
            "`Forget`, or another method."
        )
    if blind and method.stream_kind != "unlabelled":
        raise ValueError(
            f"{name} learns from labels, but {len(blind)} of the {stream.info.num_tasks} tasks of this stream have "
            "none; use a method that adapts without labels, such as `CoTTA`, or a labelled stream."
        )
    if method.stream_kind == "unlabelled" and not blind:
        raise ValueError(
            f"{name} adapts without labels, but all tasks of this stream ({scenario}) have them; use the scenario "
            "`UnlabelledDomains`, or another method."
        )
    if method.asks_for_task() and not stream.task_identity:
        raise ValueError(
            f"{name} answers only for samples whose task it is told (task-incremental learning), but this stream does "
            "not; set `ContinualDataModule(task_identity=True)`, or use another method."
        )
