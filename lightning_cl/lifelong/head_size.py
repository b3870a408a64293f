"""Give the class head of any module another number of outputs, in place: rows that were there stay."""

from __future__ import annotations

import torch
from torch import nn

from lightning_cl.training.find_modules import find_head, part_at


def resize_head(module: nn.Module, num_classes: int, path: str | None = None) -> str:
    """Let the head have exactly ``num_classes`` outputs; old rows keep their values, new ones are drawn as at first.

    Args:
        module: Any module with a class head that is found or named.
        num_classes: Outputs, at least 1.
        path: Dotted path of the head; found when ``None``.

    Returns:
        The dotted path of the head.

    Raises:
        ValueError: If the head is not found, or is no ``Linear`` and has another number of outputs.
    """
    path, head = _head(module, num_classes, path)
    outputs = getattr(head, "out_features", None)
    if outputs == num_classes:
        return path
    if type(head) is not nn.Linear:
        raise ValueError(
            f"the head `{path}` is a {type(head).__name__} and cannot be given {num_classes} outputs; use a "
            "`torch.nn.Linear`, or let the module's `__init__` take `num_classes`."
        )
    _resize(head, num_classes)
    return path


def _head(module: nn.Module, num_classes: int, path: str | None) -> tuple[str, nn.Module]:
    """The named layer; the classifier of the one timm network; or the layer that has as many outputs."""
    if path is not None:
        return path, part_at(module, path, "head")
    getters = [getattr(part, "get_classifier", None) for part in module.modules()]
    classifiers = [get() for get in getters if callable(get)]
    named = [(name, part) for name, part in module.named_modules() if any(part is c for c in classifiers)]
    return named[0] if len(named) == 1 else find_head(module, num_classes)


@torch.no_grad()
def _resize(head: nn.Linear, num_classes: int) -> None:
    fresh = nn.Linear(head.in_features, num_classes, head.bias is not None, head.weight.device, head.weight.dtype)
    kept = min(num_classes, head.out_features)
    fresh.weight[:kept] = head.weight[:kept]
    if head.bias is not None:
        fresh.bias[:kept] = head.bias[:kept]
    # `data`, so that whoever holds the parameters (an optimiser) still does
    for name, parameter in head.named_parameters():
        parameter.data = fresh.get_parameter(name).data
    head.out_features = num_classes
