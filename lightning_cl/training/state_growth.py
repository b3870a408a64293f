"""A checkpoint of a shorter stream in a module for a longer one: old rows bit for bit, new rows as the module has them.

What grows is declared: the head, and in every submodule the parameters and buffers that its attribute ``growing``
names, of which a dimension counts classes or tasks.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def head_names(model: Any) -> set[str]:
    """Names in the module's state of what its head has, whatever kind of layer it is; empty without a head."""
    path = model.continual.head_path
    own = [] if path is None else ["weight", "bias", *dict(model.continual_head.named_parameters())]
    return {f"{path}.{name}".lstrip(".") for name in own}


def growing_names(model: Any) -> set[str]:
    """Names of the parameters and buffers that may have fewer rows in a checkpoint."""
    module: Any = model
    names = head_names(model)
    for prefix, part in module.named_modules():
        declared = getattr(part, "growing", ())
        if isinstance(declared, tuple):  # a user's module may mean something else by the word
            names |= {f"{prefix}.{name}".lstrip(".") for name in declared}
    return names


def rename_former_keys(module: Any, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A hook before a state is loaded: keys that a method's module had in older checkpoints get today's names.

    Where the state has today's names, a former one is a part of the user's own module.

    Args:
        module: With its methods.
        state_dict: Changed in place.
        prefix: The module's name in ``state_dict``.
    """
    for name, part in module.continual.parts.items():
        if any(key.startswith(f"{prefix}continual.parts.{name}.") for key in state_dict):
            continue
        for former, below in part.former_keys.items():
            for key in [key for key in state_dict if key.startswith(f"{prefix}{former}")]:
                rest = key.removeprefix(f"{prefix}{former}")
                state_dict[f"{prefix}continual.parts.{name}.{below}{rest}"] = state_dict.pop(key)


def fits_into(saved: Tensor, fresh: Tensor) -> bool:
    """Whether ``fresh`` is at least as large in every dimension."""
    return saved.ndim == fresh.ndim and all(a <= b for a, b in zip(saved.shape, fresh.shape, strict=True))


def with_old_values(saved: Tensor, fresh: Tensor) -> Tensor:
    """A copy of ``fresh`` whose first rows (and columns) are those of ``saved``."""
    grown = fresh.detach().to(saved, copy=True)
    grown[tuple(slice(size) for size in saved.shape)] = saved
    return grown


def grow_state(model: Any, saved: dict[str, Any]) -> dict[str, Any]:
    """The saved state of a shorter stream, with the rows of the module's own state behind its rows.

    What has grown is noted in ``model.continual.grown``, for :func:`grow_optimizer_state`.

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
        if name not in growing or not fits_into(known, fresh):
            raise ValueError(
                f"`{name}` has the shape {tuple(known.shape)} in the checkpoint and {tuple(fresh.shape)} here, and it "
                "does not grow with the stream; build the module and its methods with the arguments of the "
                "checkpoint, and with one output for each class of the extended stream."
            )
        grown[name] = with_old_values(known, fresh)
        model.continual.grown[name] = known.shape
    _mask_new_classes(model, saved, grown)
    return grown


def _mask_new_classes(model: Any, saved: dict[str, Any], grown: dict[str, Any]) -> None:
    """New classes wait for their task, as they would have in a stream that was as long from the start."""
    for name, wait in (("train_allowed", model.continual.train_mask != "all"), ("eval_allowed", True)):
        key = f"continual.mask.{name}"
        if key in saved and wait:
            grown[key] = grown[key].clone()
            grown[key][len(saved[key]) :] = False


def grow_optimizer_state(model: Any, optimizer: Optimizer) -> None:
    """Give an optimiser's loaded state zeros for what its parameters have gained in :func:`grow_state`.

    Moments and momentum of new rows start at zero, those of old rows go on. Step counts are one number for a whole
    parameter and stay, so Adam's bias correction treats new rows as old ones: their first steps are up to
    ``(1 - beta1) / sqrt(1 - beta2)`` times the learning rate, 3.2 by default. A method with ``reset_optimizer`` builds
    fresh optimisers at the next task anyway.
    """
    module: Any = model
    known = dict(module.named_parameters())
    for name, shape in model.continual.grown.items():
        parameter = known.get(name)
        state = {} if parameter is None else optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == shape:
                state[key] = with_old_values(value, value.new_zeros(known[name].shape))
