"""Which streams a method is made for: labelled or not, with requests to forget, with the task told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from lightning_cl.callbacks.boundaries import check_boundaries
from lightning_cl.namespace import rank_zero_warn

#: What a method learns from: labelled tasks, or tasks some of which ask to forget classes or have no labels.
StreamKind = Literal["labelled", "forget", "unlabelled"]
#: What a method does where tasks begin and end: nothing; something, and a stream of one ordered pass tells it; or
#: something, and such a stream is refused.
Boundaries = Literal["unused", "taken", "needed"]


def told_boundaries(methods: Iterable[Any], stream: Any) -> list[str]:
    """Names of the methods that an online stream tells what it hides from others: where its tasks begin and end."""
    return [type(m).__name__ for m in methods if stream.online and m.boundaries == "taken"]


def check_stream_kind(method: Any, stream: Any) -> None:
    """Check that a stream gives what a method needs; warn where it is told more than an online method may know.

    Raises:
        ValueError: If it hides where tasks end, asks to forget nothing, has labels everywhere, lacks labels, or does
            not tell the task of evaluation samples, and the method is not for it.
    """
    name, scenario, blind = type(method).__name__, type(stream.scenario).__name__, stream.info.unlabelled_tasks
    if method.needs_task_end is not None:
        check_boundaries(stream, name, *method.needs_task_end)
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
    if told_boundaries([method], stream):
        rank_zero_warn(
            f"{name} does something where a task begins or ends, which a stream of one ordered pass hides; here it is "
            f"told the {stream.info.num_tasks} tasks of {scenario}. Say so beside its numbers (the report does), or "
            "use a method that needs no task boundaries."
        )
