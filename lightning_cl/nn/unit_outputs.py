"""Listen to what the units of a network's layers answer, and to what its head is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from lightning_cl.nn.eager import uncompiled

#: Layers that make the answers of units, where a network has them as modules.
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Hardswish, nn.Tanh, nn.Sigmoid,
)  # fmt: skip


def is_activation(part: nn.Module) -> bool:
    """One of :data:`ACTIVATIONS`, or of the activations of Hugging Face's transformers."""
    return isinstance(part, ACTIVATIONS) or type(part).__module__ == "transformers.activations"


def unit_layers(module: nn.Module, head: nn.Module) -> dict[str, nn.Module]:
    """The activation layers of a network by name; where it has none, its linear layers and convolutions but the head.

    Args:
        module: Parts below ``continual`` are left out.
        head: The layer that makes the class logits.
    """
    own = {name: part for name, part in module.named_modules() if not name.startswith("continual")}
    found = {name: own[name] for name in activation_names(module)}
    inside = {id(part) for part in head.modules()}
    weighted = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return found or {n: part for n, part in own.items() if isinstance(part, weighted) and id(part) not in inside}


@contextmanager
def unit_outputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """What each layer answers within the block, one entry a call, without gradient; those of activations as they are.

    A layer that is no activation counts with its outputs above 0, as if a ReLU followed.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [layer.register_forward_hook(partial(_keep, found[name])) for name, layer in layers.items()]
    try:
        with uncompiled():
            yield found
    finally:
        for handle in handles:
            handle.remove()


def _keep(calls: list[Tensor], layer: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.ndim > 1:
        # A copy: a layer behind it may work in place.
        calls.append(output.detach().clone() if is_activation(layer) else output.detach().relu())


@contextmanager
def layer_input(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What a layer is given within the block, one entry a call, with gradient."""
    found: list[Tensor] = []
    handle = layer.register_forward_pre_hook(partial(_note, found))
    try:
        with uncompiled():
            yield found
    finally:
        handle.remove()


def _note(found: list[Tensor], layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    found.append(inputs[0])


def activation_names(module: nn.Module) -> list[str]:
    """Names of the activation layers of a network; parts below ``continual`` are left out."""
    return [name for name, part in module.named_modules() if is_activation(part) and not name.startswith("continual")]
