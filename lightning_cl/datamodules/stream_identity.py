"""Whether a stream begins as another one did, and in words what is different if not."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_cl.datamodules.task import StreamInfo


def is_prefix(shorter: StreamInfo, longer: StreamInfo) -> bool:
    """Whether ``longer`` is ``shorter``, or was made from it by extending: same samples, tasks, labels and names.

    What a stream was extended from is part of its own fingerprint, so equal hashes are enough for the samples.
    """
    if shorter.fingerprint == longer.fingerprint:
        return True
    return (
        (shorter.num_tasks, shorter.fingerprint) in longer.extended_from
        and longer.classes_per_task[: shorter.num_tasks] == shorter.classes_per_task
        and longer.class_names[: shorter.num_classes] == shorter.class_names
    )


def difference(saved: StreamInfo, here: StreamInfo) -> str:
    """One sentence on how the stream of a checkpoint differs from this one: both hashes, and the first difference."""
    hashes = f"the checkpoint is of another stream: {describe(saved)}, but this stream is {describe(here)}"
    common = min(saved.num_tasks, here.num_tasks)
    if saved.class_names != here.class_names and saved.num_classes == here.num_classes:
        label = next(i for i, (a, b) in enumerate(zip(saved.class_names, here.class_names, strict=True)) if a != b)
        names = f"{saved.class_names[label]!r} in the checkpoint and {here.class_names[label]!r} here"
        return f"{hashes}; class {label} is {names}."
    for task in range(common):
        held, wanted = saved.classes_per_task[task], here.classes_per_task[task]
        if held != wanted:
            return f"{hashes}; task {task} holds the classes {_few(held)} in the checkpoint and {_few(wanted)} here."
    if here.extended_from:
        parts = ", ".join(f"{tasks} tasks (hash {fingerprint[:12]})" for tasks, fingerprint in here.extended_from)
        return f"{hashes}; it was extended from {parts}."
    return f"{hashes}."


def refuse_other_classes(module: str, known: Sequence[str], here: Sequence[str]) -> None:
    """Refuse labels that mean other classes than those which a module has learned.

    Args:
        module: Name of the module's class, for the message.
        known: Names of its classes, by label.
        here: Names of the stream's classes, by label.

    Raises:
        ValueError: If a label has another name here.
    """
    label = next((c for c, (old, new) in enumerate(zip(known, here, strict=False)) if old != new), None)
    if label is not None:
        raise ValueError(
            f"this {module} has learned {known[label]!r} as class {label}, but in this stream class {label} is "
            f"{here[label]!r}, so that one would overwrite the other; teach it by class name with "
            '`lightning_cl.load("its folder").learn("the new data")` (`lightning-cl learn DATA --into DIR`), or extend '
            "the stream that it was trained on with `stream.extend(source, scenario)` and go on from its checkpoint."
        )


def refuse_other_stream(module: str, known: StreamInfo, info: StreamInfo) -> None:
    """Refuse to go on with a live module on a stream that was extended since, or whose labels mean other classes.

    Args:
        module: Name of the module's class, for the message.
        known: The stream that it was built for.
        info: The stream.

    Raises:
        ValueError: If it is one of these.
    """
    if not is_prefix(known, info):
        refuse_other_classes(module, known.class_names, info.class_names)
    elif known.fingerprint != info.fingerprint:
        raise ValueError(
            f"this {module} was built for the stream before it was extended ({known.num_tasks} of "
            f"{info.num_tasks} tasks, {known.num_classes} of {info.num_classes} classes); build a fresh one with "
            f"{info.num_classes} outputs and go on from a checkpoint: "
            "`trainer.fit(fresh, datamodule=stream, ckpt_path=...)`."
        )


def describe(info: StreamInfo) -> str:
    """Numbers and hash."""
    return f"{info.num_tasks} tasks, {info.num_classes} classes, hash {info.fingerprint[:12]}"


def _few(classes: tuple[int, ...]) -> str:
    return f"{list(classes[:8])}" if len(classes) <= 8 else f"{list(classes[:8])} and {len(classes) - 8} more"
