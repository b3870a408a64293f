"""What a module must have for a method to work on it: a `forward`, an optimisation that a loss can be added to."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.namespace import LightningModule

_MIXINS = "lightning_cl.mixins."  # what these define goes on to the user's


def check_module(method: Any, module: LightningModule) -> None:
    """Check a user's module before a method is attached to it.

    Raises:
        ValueError: If it optimises manually and the method adds to its loss or acts before its step, or has no
            ``forward`` and the method reads features or logits through it.
    """
    name, kind = type(method).__name__, type(module).__name__
    if (method.adds_loss or method.needs_automatic) and not module.automatic_optimization:
        does = (
            "adds a term to the loss that `training_step` returns"
            if method.adds_loss
            else "makes the loss of a step itself, or acts between the loss and the optimiser's step"
        )
        raise ValueError(f"{name} {does}, but {kind} optimises manually; set `automatic_optimization = True`.")
    if method.needs_forward and not has_forward(module):
        raise ValueError(
            f"`{kind}` has no `forward`, through which {name} reads features and logits; define "
            "`forward(self, images)` to return the class logits, as `training_step` makes them."
        )


def has_forward(module: LightningModule) -> bool:
    """Whether the user's class, or a base of it other than Lightning's, defines ``forward``."""
    own = vars(module).get("forward")  # on the object itself, where Lightning puts the class's back after a step
    kinds = (kind for kind in type(module).__mro__ if not kind.__module__.startswith(_MIXINS))
    inherited = next(vars(kind)["forward"] for kind in kinds if "forward" in vars(kind))
    missing = (None, LightningModule.forward, nn.Module.forward)
    return getattr(own, "__func__", own) not in missing or inherited not in missing
