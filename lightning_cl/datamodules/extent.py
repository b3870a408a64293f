"""Checks how much of a stream a fit will train, and refuses one that would train nothing, or the same again."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from weakref import WeakKeyDictionary

from lightning_cl.datamodules.protocol import Stream
from lightning_cl.datamodules.stream_identity import refuse_other_classes
from lightning_cl.namespace import LightningModule, Trainer, rank_zero_warn

#: Modules that a Trainer with a limit has trained on a part of a stream: its fingerprint, and the last task.
_PARTLY_TRAINED: WeakKeyDictionary[LightningModule, tuple[str, int]] = WeakKeyDictionary()
#: Names of the classes, by label, of the stream that a module was trained on last.
_CLASS_NAMES: WeakKeyDictionary[LightningModule, tuple[str, ...]] = WeakKeyDictionary()


def check_extent(trainer: Trainer, module: LightningModule, stream: Stream, limit: int | None, resumed: bool) -> None:
    """Say where ``max_steps`` ends a fit, and refuse one that only repeats another.

    Args:
        trainer: In a fit, before its first step.
        module: What it trains.
        stream: On what.
        limit: The user's ``max_epochs``, if it ends the run within the stream.
        resumed: The fit goes on from a checkpoint.

    Raises:
        ValueError: If nothing is left to train, the first tasks would be trained again by a Trainer for a part, or the
            stream's labels mean other classes than those which the module has learned.
    """
    if not resumed:
        _refuse_idle_fit(trainer)
        refuse_other_classes(type(module).__name__, _CLASS_NAMES.get(module, ()), stream.info.class_names)
        if trainer.current_epoch == 0 and _is_partial(trainer, limit):
            _refuse_first_task_again(module, stream)
    ends = list(accumulate(stream.steps_of_tasks()))
    if 0 <= trainer.max_steps < ends[-1] and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        rank_zero_warn(
            f"`max_steps={trainer.max_steps}` ends the run in task {bisect_left(ends, trainer.max_steps) + 1} of "
            f"{len(ends)}; the whole stream has {ends[-1]} steps."
        )


def remember_extent(trainer: Trainer, module: LightningModule, stream: Stream, limit: int | None) -> None:
    """Note what a module was trained on, and whether on a part of it, for the next :func:`check_extent`."""
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        _CLASS_NAMES[module] = stream.info.class_names
    task = stream.unfinished_task if _is_partial(trainer, limit) else None
    if task is None:
        _PARTLY_TRAINED.pop(module, None)
    else:
        _PARTLY_TRAINED[module] = stream.info.fingerprint, task


def _is_partial(trainer: Trainer, limit: int | None) -> bool:
    """Whether the user wants a part of the stream, and not only to see that it runs."""
    return (limit is not None or trainer.max_steps != -1) and not trainer.fast_dev_run  # type: ignore[attr-defined]


def _refuse_idle_fit(trainer: Trainer) -> None:
    """A second fit of a Trainer that has come to its end trains nothing, and its report would be one of nothing."""
    epochs, steps = trainer.current_epoch, trainer.global_step
    if 0 < epochs >= (trainer.max_epochs or 0):
        done = f"trained all {epochs} epochs"
    elif trainer.max_steps != -1 and 0 < steps >= trainer.max_steps:
        done = f"made all {steps} steps"
    else:
        return
    raise ValueError(
        f"this Trainer has {done} that it was to, so nothing is left for another `fit`; use a new Trainer, or go on "
        "from a checkpoint with `ckpt_path`, on the stream or on one that was extended."
    )


def _refuse_first_task_again(module: LightningModule, stream: Stream) -> None:
    """A new Trainer for each task, in a loop, would train the first tasks again and again."""
    fingerprint, task = _PARTLY_TRAINED.get(module, ("", 0))
    if fingerprint == stream.info.fingerprint:
        raise ValueError(
            f"this module was trained on task {task} of {stream.info.num_tasks} by another Trainer, and a new one "
            "begins with task 0 again; all tasks are one `trainer.fit` (leave `max_epochs` and `max_steps` unset), "
            "and a run that was cut short goes on with `trainer.fit(..., ckpt_path=...)`."
        )
