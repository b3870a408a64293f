"""Rename, merge and forget classes of a trained model; what is stated, not learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.lifelong.class_names import few, renamed_class
from lightning_cl.namespace import LightningModule

#: Where a checkpoint describes its stream.
_INFOS = (("lightning_cl", "info"), ("ContinualDataModule", "info"))


def info_of(checkpoint: dict[str, Any]) -> StreamInfo:
    """The stream of a checkpoint."""
    return StreamInfo.from_state_dict(checkpoint["lightning_cl"]["info"])


def with_info(checkpoint: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The checkpoint with other entries in the description of its stream."""
    changed = dict(checkpoint)
    for section, key in _INFOS:
        if section in changed:
            changed[section] = {**changed[section], key: {**changed[section][key], **changes}}
    return changed


def rename_class(checkpoint: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The checkpoint with another name for a class.

    Raises:
        ValueError: If there is no such class, or the name is taken.
    """
    return with_info(checkpoint, class_names=renamed_class(info_of(checkpoint).class_names, old, new))


def merge_classes(
    checkpoint: dict[str, Any], module: LightningModule, old: str, into: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checkpoint in which all that was learned of ``old`` counts as ``into``; and what becomes of labels.

    Raises:
        ValueError: If a class is not there, or the method cannot.
    """
    names = info_of(checkpoint).class_names
    source, target = _column(names, old), _column(names, into)
    if source == target:
        raise ValueError(f"`{old}` cannot be merged into itself; name two classes.")
    for bank in _banks(module, "merge_class", "merge classes"):
        bank.merge_class(source, target)
    changed = _without(checkpoint, module, source, f"merged into {into} ({source})", target)
    return changed, {"relabel": {str(source): target}}


def forget_class(
    checkpoint: dict[str, Any], module: LightningModule, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checkpoint without what was learned of a class; and what becomes of labels.

    Its column stays, empty and never answered.

    Raises:
        ValueError: If there is no such class, or the method cannot.
    """
    column = _column(info_of(checkpoint).class_names, name)
    for bank in _banks(module, "forget_class", "forget a class"):
        bank.forget_class(column)
    return _without(checkpoint, module, column, f"forgotten ({column})", None), {"relabel": {str(column): None}}


def _banks(module: LightningModule, operation: str, what: str) -> list[Any]:
    """The heads of all methods; all of them can do it, or none does.

    Raises:
        ValueError: If a method keeps something else of a class.
    """
    state: Any = getattr(module, "continual", None)
    methods = [] if state is None else [key.rpartition(".")[2] for key in state.methods]
    banks = [] if state is None else [getattr(part, "bank", None) for part in state.parts.values()]
    able = banks and len(banks) == len(methods) and all(hasattr(bank, operation) for bank in banks)
    if not able or state.memory is not None:
        name = " + ".join(methods) or type(module).__name__
        raise ValueError(
            f"{name} cannot {what}: what it learned of it is not kept apart; use a method with statistics of each "
            "class (`PrototypeClassifier`), or go back to the version before it was learned (`--to VERSION`)."
        )
    return banks


def _without(
    checkpoint: dict[str, Any], module: LightningModule, column: int, name: str, instead: int | None
) -> dict[str, Any]:
    """The module's state now, in which a column is no class any more."""
    state: Any = module.continual
    for mask in (state.mask.eval_allowed, state.mask.train_allowed):
        mask[column] = False
    info = info_of(checkpoint)
    names = [name if c == column else known for c, known in enumerate(info.class_names)]
    after = [[instead if c == column else c for c in task] for task in info.classes_per_task]
    held = [sorted({c for c in task if c is not None}) for task in after]
    changed = with_info(checkpoint, class_names=names, classes_per_task=held)
    return {**changed, "state_dict": module.state_dict()}


def _column(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise ValueError(f"the model has no class {name!r}; it has {few(names)}.")
    return list(names).index(name)


def frozen_names(module: LightningModule) -> frozenset[str]:
    """Names of what no method changes: the user's own parameters that are frozen, and buffers."""
    state: Any = getattr(module, "continual", None)
    if state is None:
        return frozenset()
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad and name in state.own_parameters}
    return frozenset(frozen | set(state.own_buffers))
