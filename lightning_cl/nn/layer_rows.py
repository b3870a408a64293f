"""Finds the parameters that the rows of a layer's weight are made of, whatever makes the weight of them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def row_parameters(layer: nn.Module, name: str = "weight") -> list[nn.Parameter]:
    """Trained parameters whose row ``i`` alone makes row ``i`` of ``layer.<name>``; holding it holds the layer's row.

    Usually this is the parameter ``layer.<name>`` itself; under ``torch.nn.utils.parametrize``, ``weight_norm`` (both)
    and ``prune`` it is what those keep in its place.

    Args:
        layer: Such as an ``nn.Linear``.
        name: Of a tensor with a row for each output; one that is ``None`` is made of nothing.

    Raises:
        ValueError: If a row depends on parameters of other rows, too, as under ``spectral_norm``.
    """
    own = dict(layer.named_parameters(recurse=False))
    if name in own:
        found = [own[name]]
    elif parametrize.is_parametrized(layer, name):
        made = layer.get_submodule(f"parametrizations.{name}")
        found = [parameter for parameter in made.parameters() if parameter.requires_grad]
        if not _made_by_row(made):
            raise ValueError(_message(name, ", ".join(type(part).__name__ for part in made.children())))
    else:
        found = [own[key] for key in (f"{name}_g", f"{name}_v", f"{name}_orig") if key in own]
        # hooks that set `weight` before each call: weight_norm, whose norm may be over columns; prune; spectral_norm
        norms, mask = own.get(f"{name}_g"), getattr(layer, f"{name}_mask", None)
        by_row = mask is not None or (norms is not None and norms.ndim > 0 and norms.numel() == len(norms) > 1)
        if found and not by_row:
            raise ValueError(_message(name, "weight_norm" if norms is not None else "spectral_norm"))
    return found


def _message(name: str, maker: str) -> str:
    return f"its `{name}` is made by {maker}, where a row depends on the parameters of other rows"


@torch.no_grad()
def _made_by_row(made: nn.Module) -> bool:
    """Whether changing some rows of the parameters leaves the other rows of what ``made()`` gives as they are."""
    made = copy.deepcopy(made).cpu().eval()
    weights = {name: parameter.clone() for name, parameter in made.named_parameters() if parameter.requires_grad}
    noise = torch.random.get_rng_state()
    before: Tensor = made()
    try:
        if any(weight.ndim == 0 or len(weight) != len(before) for weight in weights.values()):
            return False
        for changed in _splits(len(before)):
            torch.random.set_rng_state(noise)
            for name, weight in weights.items():
                rows = changed.view(-1, *[1] * (weight.ndim - 1))
                made.get_parameter(name).copy_(torch.where(rows, weight + 1, weight))
            if not torch.equal(made()[~changed], before[~changed]):
                return False
        return True
    finally:
        torch.random.set_rng_state(noise)


def _splits(count: int) -> list[Tensor]:
    """``(count,)`` masks; for any two rows, one of the masks holds the first without the second."""
    rows = torch.arange(count)
    bits = [(rows >> bit) % 2 == 1 for bit in range((count - 1).bit_length())]
    return [mask for bit in bits for mask in (bit, ~bit)]
