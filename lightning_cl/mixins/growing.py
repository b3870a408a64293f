"""A checkpoint of a shorter stream in a module for a longer one: old rows bit for bit, new rows as the module has them.

What grows is declared: the head and the class mask by class, and in every submodule the parameters and buffers that its
attribute ``growing`` names, whose dimension 0 counts classes or tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from lightning_cl.mixins.base import ContinualMixin


def growing_names(model: ContinualMixin) -> set[str]:
    """Names of the parameters and buffers that may have fewer rows in a checkpoint."""
    module: Any = model
    names = {f"{model.continual.head_path}.{part}".lstrip(".") for part in ("weight", "bias")}
    for prefix, part in module.named_modules():
        declared = getattr(part, "growing", ())
        if isinstance(declared, tuple):  # a user's module may mean something else by the word
            names |= {f"{prefix}.{name}".lstrip(".") for name in declared}
    return names


def with_new_rows(saved: Tensor, fresh: Tensor) -> Tensor:
    """``(R, ...)`` saved rows, followed by those rows of ``fresh`` (``(S, ...)``, ``S >= R``) that were not saved."""
    return torch.cat([saved, fresh[len(saved) :].detach().to(saved)])


def grow_state(model: ContinualMixin, saved: dict[str, Any]) -> dict[str, Any]:
    """The saved state of a shorter stream, with the rows of the module's own state behind its rows.

    Args:
        model: For the longer stream, with its methods attached.
        saved: ``checkpoint["state_dict"]``; left as it is.

    Raises:
        ValueError: If a tensor has another shape and is not known to grow with the stream.
    """
    module: Any = model
    growing, grown = growing_names(model), dict(saved)
    for name, fresh in module.state_dict().items():
        known = saved.get(name)
        if not isinstance(known, Tensor) or known.shape == fresh.shape:
            continue
        if name not in growing or known.shape[1:] != fresh.shape[1:] or len(known) > len(fresh):
            raise ValueError(
                f"`{name}` has the shape {tuple(known.shape)} in the checkpoint and {tuple(fresh.shape)} here, and it "
                "does not grow with the stream; build the module and its methods with the arguments of the "
                "checkpoint, and with one output for each class of the extended stream."
            )
        grown[name] = with_new_rows(known, fresh)
    _mask_new_classes(model, saved, grown)
    return grown


def _mask_new_classes(model: ContinualMixin, saved: dict[str, Any], grown: dict[str, Any]) -> None:
    """New classes wait for their task, as they would have in a stream that was as long from the start."""
    for name, wait in (("train_allowed", model.continual.train_mask != "all"), ("eval_allowed", True)):
        key = f"continual.mask.{name}"
        if key in saved and wait:
            grown[key] = grown[key].clone()
            grown[key][len(saved[key]) :] = False


def grow_optimizer_state(optimizer: Optimizer) -> None:
    """Give an optimiser's loaded state zeros for the rows that its parameters have gained since; a post hook.

    Moments and momentum of new rows start at zero, those of old rows go on. Step counts are one number for a whole
    parameter and stay, so Adam's bias correction treats new rows as old ones: their first steps are up to
    ``(1 - beta1) / sqrt(1 - beta2)`` times the learning rate, 3.2 by default. A method with ``reset_optimizer`` builds
    fresh optimisers at the next task anyway.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if _has_fewer_rows(value, parameter):
                state[name] = with_new_rows(value, torch.zeros_like(parameter, dtype=value.dtype))


def _has_fewer_rows(value: Any, parameter: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim == parameter.ndim > 0
        and value.shape[1:] == parameter.shape[1:]
        and len(value) < len(parameter)
    )
