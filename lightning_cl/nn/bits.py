"""Binary masks: learned through a threshold, and kept with one bit for each weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_cl.nn.weights import key_of

_PLACES = 8  # bits in a byte


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of ``hard`` (any dtype), bit for bit, with the gradient of ``soft`` (of the same shape)."""
    return hard.to(soft.dtype) + (soft - soft.detach())


def pack_bits(mask: Tensor) -> Tensor:
    """``(ceil(n / 8),)`` bytes of a boolean mask with ``n`` elements of any shape."""
    flat = mask.flatten().to(torch.uint8)
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % _PLACES)).view(-1, _PLACES)
    return (rows << torch.arange(_PLACES, dtype=torch.uint8, device=mask.device)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The boolean mask of this shape that :func:`pack_bits` packed."""
    places = torch.arange(_PLACES, dtype=torch.uint8, device=packed.device)
    flat = (packed[:, None] >> places & 1).flatten()
    return flat[: torch.Size(shape).numel()].view(shape).bool()


class TaskBits(nn.Module):
    """A boolean mask of each of some weights for each task, with one bit for each element.

    Args:
        masks: What all tasks have at first, by the names of the weights; of any shapes.
        num_tasks: Tasks, ``T``.

    Attributes:
        growing: Buffers with a row for each task.
    """

    def __init__(self, masks: Mapping[str, Tensor], num_tasks: int) -> None:
        super().__init__()
        self._shapes = {name: mask.shape for name, mask in masks.items()}
        self.growing = tuple(map(key_of, masks))
        for name, mask in masks.items():
            self.register_buffer(key_of(name), pack_bits(mask).expand(num_tasks, -1).clone())

    def keep(self, name: str, task: int, mask: Tensor) -> None:
        """Keep the mask of a weight for a task."""
        self.get_buffer(key_of(name))[task] = pack_bits(mask)

    def mask(self, name: str, task: int) -> Tensor:
        """The boolean mask of a weight for a task, of the weight's shape."""
        return unpack_bits(self.get_buffer(key_of(name))[task], self._shapes[name])
