"""Add up the inputs of a network's layers while it answers: ``sum x x^T``, from which subspaces are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from lightning_cl.nn.eager import uncompiled
from lightning_cl.nn.subspace import layer_inputs


def has_input_rows(layer: nn.Module) -> bool:
    """Whether :func:`~lightning_cl.nn.subspace.layer_inputs` takes the layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def input_width(layer: nn.Module) -> int:
    """Inputs of one output, ``D``: those of a patch for a convolution."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel()


@contextmanager
def input_grams(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """``(D, D)`` float64 ``sum x x^T`` over all calls of each layer within the block; zeros for one that is not called.

    Args:
        layers: Those with :func:`has_input_rows`, by name.
    """
    grams = {}
    for name, layer in layers.items():
        width = input_width(layer)
        grams[name] = torch.zeros(width, width, dtype=torch.float64, device=next(layer.parameters()).device)
    handles = [layer.register_forward_pre_hook(partial(_count, grams[name])) for name, layer in layers.items()]
    try:
        with uncompiled():
            yield grams
    finally:
        for handle in handles:
            handle.remove()


def _count(gram: Tensor, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    rows = layer_inputs(layer, inputs[0]).double()
    gram += rows.T @ rows
