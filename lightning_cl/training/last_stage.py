"""Finds where the last part of a network begins, which a method remembers, copies or reads on its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.nn.weights import trained
from lightning_cl.training.find_modules import part_at, stages_in


def last_part(module: Any, path: str | None, does: str, which: str) -> str:
    """Dotted path of the last stage of a network, or else of its last trained part beside the head.

    Args:
        module: A LightningModule with methods.
        path: The user's choice, which wins.
        does: What a method does with the stage, as the start of a sentence.
        which: Part is to be named where none is found.

    Raises:
        ValueError: If that is all of the network.
    """
    if found := _named_or_last(module, path):
        return found
    head = module.continual.head_path
    for depth in range(head.count("."), -1, -1):
        within = ".".join(head.split(".")[:depth])
        names = [f"{within}.{name}".lstrip(".") for name, _ in module.get_submodule(within).named_children()]
        beside = [n for n in names if n != "continual" and not f"{head}.".startswith(f"{n}.")]
        parts = [name for name in beside if trained(module.get_submodule(name))]
        if len(parts) > 1:
            return parts[-1]
    raise ValueError(
        f'{does}, but no stages were found in this {type(module).__name__}; name {which} with `stage="..."`.'
    )


def last_stage(module: nn.Module, path: str | None) -> str:
    """Dotted path of the last stage of a network, whose maps are read; see :func:`last_part`.

    Raises:
        ValueError: If there is none.
    """
    if found := _named_or_last(module, path):
        return found
    raise ValueError(
        f"no stages were found in this {type(module).__name__} (looked for `layer1`, `stages.0`, `blocks.0`); name "
        "the layer whose maps or tokens are projected with `stage=`."
    )


def _named_or_last(module: nn.Module, path: str | None) -> str | None:
    if path is not None:
        part_at(module, path, "stage")
        return path
    return next(reversed(stages_in(module)), None)
