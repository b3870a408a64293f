"""Count stored bytes and samples, and find the layer that every pass calls."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind some tensors; what two of them share counts once."""
    sizes: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = max(storage.nbytes(), sizes.get(storage.data_ptr(), 0))
    return sum(sizes.values())


def memory_facts(facts: Iterable[dict[str, Any]], image_bytes: int) -> tuple[int, int]:
    """Samples that methods keep, and the bytes that keeping them takes.

    Positions in the training data are counted as the images that they stand for: a memory of positions only works
    while those images are kept. What is kept beside them (logits, say) counts as it is.

    Args:
        facts: What the callbacks say of themselves, see ``ContinualCallback.report_facts``.
        image_bytes: Of one image in whole numbers from 0 to 255.
    """
    samples = size = 0
    for fact in facts:
        count = int(fact.get("stored_samples", 0))
        samples += count
        positions = str(fact.get("stored_as", "")).startswith("positions")
        beside = int(fact.get("stored_bytes_beside", 0))
        size += count * image_bytes + beside if positions else int(fact.get("stored_bytes", 0))
    return samples, size


def counted_layer(module: nn.Module, path: str | None = None) -> nn.Module | None:
    """The layer that every pass through the network calls once; ``None``: the first that is called, in other networks.

    In a ViT it is in the last block: a pass with prompts begins behind what it shares with the query pass.

    Args:
        module: A LightningModule.
        path: Its dotted path, if it is known.

    Raises:
        ValueError: If there is nothing at ``path``.
    """
    if path is not None:
        modules: dict[str, nn.Module] = dict(module.named_modules())
        if path not in modules:
            raise ValueError(f'`layer="{path}"` is no layer of {type(module).__name__}; give a dotted path in it.')
        return modules[path]
    for part in module.modules():
        if isinstance(part, VisionTransformer):
            blocks: Any = part.blocks
            return leaves(blocks[-1])[0]
        entrance = getattr(getattr(part, "visual", None), "conv1", None)
        if isinstance(entrance, nn.Module):
            return entrance
    return None


def device_name(device: torch.device) -> str:
    """A GPU's own name, or ``cpu`` with the architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def leaves(module: nn.Module) -> list[nn.Module]:
    """Layers with parameters of their own and nothing in them."""
    return [m for m in module.modules() if next(m.children(), None) is None and list(m.parameters(False))]


def rows_of(args: Any) -> int:
    """Samples in what a layer is called with; 0 for whole numbers, such as a text's tokens."""
    first = args[0] if isinstance(args, tuple) and args else None
    return len(first) if isinstance(first, Tensor) and first.is_floating_point() and first.ndim > 1 else 0
