"""Lets layers that are no ``nn.Linear`` be read as one: convolutions of one pixel, cosine layers, wrapped layers."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from lightning_cl.nn.extension import extend

#: What may stand around a linear layer without changing what its rows mean.
_AROUND = (nn.Flatten, nn.Unflatten, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Identity, nn.ReLU)


def weight_layer(layer: nn.Module) -> nn.Module | None:
    """The layer whose ``weight`` has a row for each output of ``layer``; ``None``: there is none.

    Itself, for an ``nn.Linear``, a convolution of one pixel, or any layer with an own weight of shape ``(C, D)``
    (cosine and ArcFace layers; no embedding); the only one with parameters, in an ``nn.Sequential``; the wrapped
    ``Linear``, where ``layer.base_layer`` is one, as in PEFT; one whose weight was found by :func:`with_rows`.
    """
    if isinstance(layer, NamedRows):
        return layer
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


class NamedRows(SizedLayer):
    """Mixin for a layer whose weight has another name, or a column for each class; see :func:`with_rows`."""

    @property
    def rows_in(self) -> tuple[str, int]:
        """Name of the parameter, and its dimension that counts classes."""
        return self.__dict__["_rows_in"]  # type: ignore[no-any-return]

    @property
    def growing(self) -> tuple[str, ...]:
        """What has more rows in a longer stream."""
        return (self.rows_in[0],)

    @property
    def weight(self) -> Tensor:
        """``(C, D)``."""
        name, dim = self.rows_in
        return getattr(self, name).movedim(dim, 0)  # type: ignore[no-any-return]


def with_rows(layer: nn.Module, num_classes: int) -> bool:
    """Let a layer be read by its one matrix that has a row, or a column, for each class, whatever its name is.

    As ``kernel`` and ``W`` of shape ``(D, C)`` in ArcFace layers.

    Args:
        layer: Without a :func:`weight_layer`.
        num_classes: Columns of its output.

    Returns:
        Whether there is one.
    """
    own = {name: p.shape for name, p in layer.named_parameters(recurse=False) if p.ndim == 2}
    found = [(name, shape.index(num_classes)) for name, shape in own.items() if num_classes in shape]
    if len(found) != 1 or isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return False
    extend(layer, NamedRows)
    layer.__dict__["_rows_in"] = found[0]
    return True


def is_linear(layer: nn.Module) -> bool:
    """Whether logits are products of the features with the rows of a parameter, plus a bias.

    Not those of a cosine layer, nor of one whose weight is made of others (``weight_norm``) or is wrapped. Pooling,
    reshaping, dropout and a ReLU may stand around it in an ``nn.Sequential``.
    """
    kinds = (nn.Linear, nn.Conv2d)
    if isinstance(layer, nn.Sequential):
        inner = weight_layer(layer)
        return inner is not None and is_linear(inner) and all(isinstance(m, _AROUND) for m in layer if m is not inner)
    plain = any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in kinds)
    return plain and weight_layer(layer) is layer and "weight" in dict(layer.named_parameters(recurse=False))


def class_rows(layer: nn.Module) -> Tensor:
    """``(C, D)`` rows of a head's weight, those of a convolution, too."""
    return cast(Tensor, layer.weight).flatten(1)


def other_parameters(layer: nn.Module) -> Tensor:
    """A scalar of all that a head has beside its weight: DDP waits for a gradient of what an answer leaves out."""
    weight: Any = layer.weight
    return sum((p.sum() for p in layer.parameters() if p is not weight), weight.new_zeros(()))


def _part(layer: Any, name: str) -> Any:
    return getattr(weight_layer(layer), name, None)


def as_linear(layer: nn.Module) -> nn.Linear:
    """The same layer, with ``in_features``, ``out_features`` and ``weight``.

    Args:
        layer: One that has a :func:`weight_layer`.
    """
    if not isinstance(layer, nn.Linear | NamedRows):
        extend(layer, SizedLayer if weight_layer(layer) is layer else LayerAround)
    return cast(nn.Linear, layer)


def pooled(layer: nn.Module, values: Tensor) -> Tensor:
    """Features or logits of a head: ``(B, D)``, in the mean over the pixels, if they are ``(B, D, H, W)``."""
    return values.flatten(2).mean(2) if is_map(layer, values) else values


def logits_from(layer: nn.Module, features: Tensor) -> Tensor:
    """``(B, C)`` logits of a head, with its hooks, from ``(B, D)`` features; of a convolution as from one pixel."""
    first = layer[0] if isinstance(layer, nn.Sequential) else layer
    pixels = isinstance(weight_layer(layer), nn.Conv2d) and not isinstance(first, nn.Unflatten)
    return pooled(layer, layer(features[..., None, None] if pixels else features)).flatten(1)


def is_map(layer: nn.Module, values: Tensor) -> bool:
    """Whether they are ``(B, D, H, W)``, as a convolution has them; a ``Linear`` has the features last."""
    return values.ndim == 4 and not isinstance(layer, nn.Linear)
