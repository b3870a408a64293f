"""The layers that adapters of a network of any library go to: named by a pattern, or the usual ones of its blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_cl.nn.adapters import Adapters, Bank, block_linears, freeze_all_but, inject
from lightning_cl.nn.adapters.sites import ending, exactly
from lightning_cl.training import MethodModule


class AddedParts(MethodModule):
    """Adapters that are trained from the first step to the last."""

    def __init__(self, adapters: Adapters) -> None:
        super().__init__()
        self.adapters = adapters


def added_adapters(
    pl_module: Any,
    make: Callable[[nn.Module], Bank],
    at: str | None,
    usual: list[str],
    site: str,
    read: str | None = None,
) -> Adapters:
    """Adapters at the layers whose names end as ``at`` says, or at the usual ones; all else but the head is frozen.

    Raises:
        ValueError: If there is no such layer.
    """
    adapters = inject(pl_module, make, at=layer_pattern(pl_module, at, usual, site), site=site, read=read)
    freeze_all_but(pl_module, pl_module.continual.head_path, skip=("continual",))
    return adapters


def layer_pattern(pl_module: Any, at: str | None, usual: list[str], site: str) -> str:
    """A regular expression of the whole names of the layers whose names end as ``at`` says, or of the usual ones.

    Raises:
        ValueError: If there are no usual ones, and no ``at``.
    """
    if at is None and not usual:
        what = "an adapter" if site == "parallel" else site
        raise ValueError(
            f"no place for {what} was found in the numbered blocks of this {type(pl_module).__name__}; its linear "
            f"layers are {first_linears(pl_module)}: name the layers with `at`, a regular expression."
        )
    return exactly(usual) if at is None else ending(at)


def first_linears(module: Any) -> str:
    """The names of a module's first linear layers, for errors."""
    return ", ".join([n for n, layer in module.named_modules() if isinstance(layer, nn.Linear)][:6]) or "missing"


def usual_linears(pl_module: Any) -> list[str]:
    """Names of the linear layers within numbered blocks, without the head."""
    return [name for name in block_linears(pl_module) if name != pl_module.continual.head_path]


def linear_only(layer: nn.Module, at: str | None, who: str) -> nn.Linear:
    """The layer that ``at`` names, if it is linear.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"`at={at!r}` names a {type(layer).__name__}; {who} goes to `nn.Linear` alone.")
    return layer


def linear_adapters(pl_module: Any, make: Callable[[int, int], Bank], at: str | None, who: str) -> Adapters:
    """Adapters at the linear layers whose names end as ``at`` says, or within numbered blocks; all else is frozen.

    Args:
        pl_module: With a class head, which stays trained.
        make: The adapters of a layer with so many inputs and outputs.
        at: Regular expression; ``None``: the usual layers.
        who: The method, whose name in small letters is that of the places.

    Raises:
        ValueError: If there is no such layer, or one is not linear.
    """

    def checked(layer: nn.Module) -> Bank:
        linear = linear_only(layer, at, who)
        return make(linear.in_features, linear.out_features)

    return added_adapters(pl_module, checked, at, usual_linears(pl_module), who.lower())
