"""What learns in the first task of a method that trains nothing afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.adapters import Adapters
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.heads import cosine_answer


class FirstTask(nn.Module):
    """Ordinary training by the user's step until the first task ends."""

    def __init__(self) -> None:
        super().__init__()
        self.finished = Counter()

    @property
    def learns(self) -> bool:
        """Whether the first task still goes on."""
        return not self.finished.value

    def finish(self) -> None:
        """The first task, or a later one, has ended."""
        self.finished.set(1)

    def logits(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C_head)`` logits that learn: those of the head."""
        return logits


class FirstTaskAdapters(FirstTask):
    """Adapters and the scale of a cosine head, whose rows are the weights of the module's head (APER, RanPAC).

    Args:
        adapters: With one slot.
    """

    def __init__(self, adapters: Adapters) -> None:
        super().__init__()
        self.adapters, self.scale = adapters, nn.Parameter(torch.ones(()))

    def logits(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C_head)`` cosines of features and rows, times the scale."""
        return cosine_answer(module.continual_head, features, self.scale)
