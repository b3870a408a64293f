"""Lets layers that are no ``nn.Linear`` be read as one: convolutions of one pixel, cosine layers, wrapped layers."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_cl.nn.extension import extend


def weight_layer(layer: nn.Module) -> nn.Module | None:
    """The layer whose ``weight`` has a row for each output of ``layer``; ``None``: there is none.

    Itself, for an ``nn.Linear``, a convolution of one pixel, or any layer with an own weight of shape ``(C, D)``
    (cosine and ArcFace layers; no embedding); the only one with parameters, in an ``nn.Sequential``; the wrapped
    ``Linear``, where ``layer.base_layer`` is one, as in PEFT.
    """
    base = getattr(layer, "base_layer", None)
    if isinstance(base, nn.Linear):
        return base
    if isinstance(layer, nn.Sequential):
        with_weights = [part for part in layer if any(True for _ in part.parameters())]
        return weight_layer(with_weights[0]) if len(with_weights) == 1 else None
    if isinstance(layer, nn.Conv2d):
        return layer if layer.groups == 1 and all(size == 1 for size in layer.kernel_size) else None
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return None
    own = dict(layer.named_parameters(recurse=False)).get("weight")
    return layer if isinstance(layer, nn.Linear) or (own is not None and own.ndim == 2) else None


def num_outputs(layer: nn.Module) -> int:
    """Rows of its weight; 0: it has none."""
    found = weight_layer(layer)
    return 0 if found is None else len(cast(Tensor, found.weight))


class SizedLayer:
    """Mixin for a layer that is no ``nn.Linear``: its sizes, by the names that one has."""

    @property
    def out_features(self) -> int:
        """Outputs, ``C``."""
        return num_outputs(cast(nn.Module, self))

    @property
    def in_features(self) -> int:
        """Inputs, ``D``; channels, of a convolution."""
        return int(_part(self, "weight").shape[1])


class LayerAround(SizedLayer):
    """Mixin for a layer around the one that has the weight."""

    @property
    def weight(self) -> Tensor:
        """``(C, D)``, or ``(C, D, 1, 1)`` of a convolution."""
        return _part(self, "weight")  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """``(C,)``, or none."""
        return _part(self, "bias")  # type: ignore[no-any-return]


def _part(layer: Any, name: str) -> Any:
    return getattr(weight_layer(layer), name, None)


def as_linear(layer: nn.Module) -> nn.Linear:
    """The same layer, with ``in_features``, ``out_features`` and ``weight``.

    Args:
        layer: One that has a :func:`weight_layer`.
    """
    if not isinstance(layer, nn.Linear):
        extend(layer, SizedLayer if weight_layer(layer) is layer else LayerAround)
    return cast(nn.Linear, layer)


def pooled(layer: nn.Module, values: Tensor) -> Tensor:
    """Features or logits of a head: ``(B, D)``, in the mean over the pixels, if they are ``(B, D, H, W)``."""
    return values.flatten(2).mean(2) if is_map(layer, values) else values


def is_map(layer: nn.Module, values: Tensor) -> bool:
    """Whether they are ``(B, D, H, W)``, as a convolution has them; a ``Linear`` has the features last."""
    return values.ndim == 4 and not isinstance(layer, nn.Linear)
