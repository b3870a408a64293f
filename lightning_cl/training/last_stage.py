"""Finds the last part of a network, which a method remembers, copies, reads or trains on its own."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from lightning_cl.nn.weights import trained
from lightning_cl.training.find_modules import part_at, stages_in
from lightning_cl.training.trained_body import trained_body


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


def last_parameters(module: Any, pattern: str | None, argument: str) -> tuple[str, ...]:
    """Names of the trained parameters before the head in the last stage or block of a network; of all, if it has none.

    Args:
        module: The LightningModule, with its head known.
        pattern: Regular expression that is searched in their names, in place of the stage.
        argument: What the user calls the pattern.

    Raises:
        ValueError: If the pattern is in no name.
    """
    stage = stages_in(module)[-1:] if pattern is None else ()
    wanted = re.compile(re.escape(f"{stage[0]}.") if stage else pattern or "")
    found = [name for name in trained_body(module) if name in module.continual.own_parameters]
    names = tuple(name for name in found if wanted.search(name))
    if pattern is not None and not names:
        raise ValueError(
            f"`{argument}={pattern!r}` is in the name of no trained parameter before the head; the last ones are "
            f"{', '.join(found[-3:]) or 'none'}."
        )
    return names
