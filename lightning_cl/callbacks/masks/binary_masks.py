"""Frozen weights, of which every task uses a subset of its own: learned scores, and a bit for each weight and task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.masks.frozen_network import FrozenNetwork
from lightning_cl.nn.bits import TaskBits, straight_through
from lightning_cl.nn.weights import key_of
from lightning_cl.training import TaskData


class BinaryMasks(FrozenNetwork):
    """Scores of the current task, and the packed masks of finished ones.

    Args:
        module: All of it but the head is frozen.
        info: The stream.
        who: Name of the method.
        affine: Batch norms also have weight and bias for each task, which are trained.
    """

    def __init__(self, module: Any, info: Any, who: str, affine: bool) -> None:
        super().__init__(module, info, who, affine)
        weights = {name: module.get_submodule(name).weight for name in self.layers}
        self.scores = nn.ParameterDict({key_of(n): nn.Parameter(torch.zeros_like(w)) for n, w in weights.items()})
        empty = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        self.bits = TaskBits(empty, info.num_tasks)

    # ------------------------------------------------------------------ what a method decides

    def reset_scores(self, module: Any) -> None:
        """Set the scores with which a task starts, in place."""
        raise NotImplementedError

    def chosen(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The boolean mask of scores, and what it has its gradient from."""
        raise NotImplementedError

    def fixed(self, layer: Any) -> Tensor:
        """The weights that tasks use."""
        weight: Tensor = layer.weight
        return weight

    # ------------------------------------------------------------------ what a layer computes with

    def mask(self, name: str, task: int) -> Tensor:
        """What the weight of a layer is multiplied by for a task; that of the current one has a gradient."""
        if task < self.finished.value:
            return self.bits.mask(name, task)
        return straight_through(*self.chosen(self.scores[key_of(name)]))

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """The weights that the task uses, others are 0."""
        return {"weight": self.fixed(layer) * self.mask(name, self.task)}

    # ------------------------------------------------------------------ tasks

    def start_task(self, module: Any, task: Any) -> None:
        """New scores."""
        super().start_task(module, task)
        self.reset_scores(module)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep a bit for each weight."""
        for name in self.layers:
            self.bits.keep(name, self.finished.value, self.chosen(self.scores[key_of(name)])[0])
        super().end_task(module, data)
