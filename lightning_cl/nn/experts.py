"""Experts on frozen features: a small perceptron for each task."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureExperts(nn.Module):
    """A hidden layer of ReLU units and a linear head for each task, in parameters with a row for each.

    Args:
        num_tasks: ``T``.
        width: ``D`` features.
        hidden: Hidden units, ``H``.
        num_classes: Outputs of each head, ``C``.
        seed: Of the first weights.
    """

    growing = ("inner", "inner_bias", "outer", "outer_bias")

    def __init__(self, num_tasks: int, width: int, hidden: int, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(fan_in: int, *shape: int) -> nn.Parameter:
            bound = 1 / math.sqrt(fan_in)
            return nn.Parameter(torch.empty(num_tasks, *shape).uniform_(-bound, bound, generator=generator))

        self.inner, self.inner_bias = drawn(width, hidden, width), drawn(width, hidden)
        self.outer, self.outer_bias = drawn(hidden, num_classes, hidden), drawn(hidden, num_classes)

    def logits(self, features: Tensor, slot: int) -> Tensor:
        """``(B, C)`` of ``(B, D)`` features from a task's expert."""
        units = F.linear(features.to(self.inner.dtype), self.inner[slot], self.inner_bias[slot]).relu()
        return F.linear(units, self.outer[slot], self.outer_bias[slot])

    @torch.no_grad()
    def copy(self, source: int, slot: int) -> None:
        """Begin a task's expert with the weights of another's."""
        for parameter in self.parameters():
            parameter[slot] = parameter[source]
