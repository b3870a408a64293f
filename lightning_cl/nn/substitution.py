"""Let a layer compute with other tensors than its own for the length of a call; its parameters keep their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_cl.nn.extension import extend

#: Layers that are mostly weights between units.
WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Substitutes(nn.Module):
    """Says what layers compute with; base of what :func:`substitute` takes.

    Attributes:
        who: What it is called in errors.
    """

    who: str = "another method"

    def substitutes(self, name: str, layer: nn.Module) -> Mapping[str, Any]:
        """Attributes of the layer during this call, such as ``weight``; the others are its own."""
        return {}

    def changed(self, name: str, layer: nn.Module, output: Tensor) -> Tensor:
        """What the layer answers in the place of its output."""
        return output


class SubstitutedLayer(nn.Module):
    """Mixin for a live layer; :func:`substitute` sets it up."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As before, with the attributes that stand in for its own."""
        source, name = self.__dict__["_computes_with"]
        given = source.substitutes(name, self)
        own = {key: self.__dict__[key] for key in given if key in self.__dict__}
        self.__dict__.update(given)  # found before the parameters of the same names
        try:
            return source.changed(name, self, super().forward(*args, **kwargs))
        finally:
            for key in given:
                del self.__dict__[key]
            self.__dict__.update(own)


def substitute(layer: nn.Module, source: Substitutes, name: str) -> None:
    """From here on ``layer`` computes with what ``source`` says, each time that it is called as a module.

    Args:
        layer: Any live layer; its parameters, their names and its checkpoints stay.
        source: Asked at every call. The layer does not hold it: register it where it is trained and saved.
        name: How the layer is called to the source.

    Raises:
        ValueError: If another source says so already.
    """
    known = layer.__dict__.get("_computes_with")
    if known is not None and known[0] is not source:
        raise ValueError(
            f"the layer `{name}` computes with the weights of {known[0].who} already, so {source.who} cannot replace "
            "them, too; use one of them."
        )
    extend(layer, SubstitutedLayer)
    layer.__dict__["_computes_with"] = (source, name)


def weight_layers(module: nn.Module, head: nn.Module | None = None) -> dict[str, nn.Module]:
    """Linear layers and convolutions with a trained weight of their own, by name.

    Without the head, and without the output layer of ``nn.MultiheadAttention``, which is never called as a module.
    """
    uncalled = {id(m.out_proj) for m in module.modules() if isinstance(m, nn.MultiheadAttention)}
    found = {n: m for n, m in module.named_modules() if isinstance(m, WEIGHT_LAYERS) and m is not head}
    return {n: m for n, m in found.items() if id(m) not in uncalled and _trains_weight(m)}


def _trains_weight(layer: nn.Module) -> bool:
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    return weight is not None and weight.requires_grad


def batch_norms(module: nn.Module) -> dict[str, nn.Module]:
    """Batch norms with running statistics, by name."""
    return {n: m for n, m in module.named_modules() if isinstance(m, NORMS) and m.running_mean is not None}
