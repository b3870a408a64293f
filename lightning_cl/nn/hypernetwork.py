"""A recurrent hypernetwork: makes the weights of a network for a task, one chunk after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class RecurrentHypernetwork(nn.Module):
    """``h_k = LSTM(h_{k-1}, [e_t, c_k])``, ``theta_k = Linear(h_k)``: chunks of all weights, laid end to end.

    The linear layer starts at zero, so all that is made is zero at first: take it as a change of given weights.

    Args:
        shapes: Of the weights that are made, by name.
        num_tasks: Tasks, ``T``, each with an embedding ``e_t``.
        embedding: Size of the embeddings of a task and of a chunk.
        hidden: Size of the LSTM's state.
        chunk: Weights that are made at once.
        like: Of what dtype and device.

    Attributes:
        growing: Parameters with a row for each task.
    """

    growing = ("tasks",)

    def __init__(
        self, shapes: Mapping[str, torch.Size], num_tasks: int, embedding: int, hidden: int, chunk: int, like: Tensor
    ) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.total = sum(shape.numel() for shape in self.shapes.values())
        self.tasks = nn.Parameter(torch.randn(num_tasks, embedding).to(like))
        self.chunks = nn.Parameter(torch.randn(math.ceil(self.total / chunk), embedding).to(like))
        self.lstm = nn.LSTM(2 * embedding, hidden, batch_first=True).to(like)
        self.out = nn.Linear(hidden, chunk).to(like)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, embeddings: Tensor) -> Tensor:
        """``(t, E)`` embeddings of tasks to ``(t, total)`` weights, not in 16 bits where the pass around it is."""
        with torch.autocast(embeddings.device.type, enabled=False):
            task = embeddings[:, None].expand(-1, len(self.chunks), -1)
            chunk = self.chunks.expand(len(embeddings), -1, -1)
            states, _ = self.lstm(torch.cat([task, chunk], dim=2))
            made: Tensor = self.out(states).flatten(1)[:, : self.total]
        return made

    def split(self, weights: Tensor) -> dict[str, Tensor]:
        """``(total,)`` weights, by name and in their shapes."""
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
