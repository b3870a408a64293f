"""A number that is saved with a module and read without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
        self.register_load_state_dict_post_hook(_read)  # type: ignore[no-untyped-call]

    def set(self, value: int) -> None:
        """Take this number from here on."""
        self.value = value
        self.saved.fill_(value)


def _read(counter: nn.Module, keys: Any) -> None:
    assert isinstance(counter, Counter)
    counter.value = int(counter.saved)
