"""A number that is saved with a module and read without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_cl.nn.load_hooks import after_load


class Counter(nn.Module):
    """An integer in a buffer, so in every checkpoint, and beside it as a plain ``int``.

    Args:
        start: The number at first.
    """

    saved: Tensor

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.register_buffer("saved", torch.tensor(start))
        self.value = start
        after_load(self, "_read")

    def _read(self) -> None:
        self.value = int(self.saved)

    def set(self, value: int) -> None:
        """Take this number from here on."""
        self.value = value
        self.saved.fill_(value)
