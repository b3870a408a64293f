"""Frozen weights, of which every task uses a subset of its own: learned scores, and a bit for each weight and task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.masks.task_parts import TaskParts
from lightning_cl.nn.bits import TaskBits, straight_through
from lightning_cl.nn.substitution import batch_norms
from lightning_cl.nn.weights import key_of
from lightning_cl.training import TaskData

_STATISTICS, _AFFINE = ("running_mean", "running_var"), ("weight", "bias")


class BinaryMasks(TaskParts):
    """Scores of the current task, the packed masks of finished ones, and batch norms for each task.

    Args:
        module: All of it but the head is frozen.
        info: The stream.
        who: Name of the method.
        affine: Batch norms also have weight and bias for each task, which are trained.
    """

    def __init__(self, module: Any, info: Any, who: str, affine: bool) -> None:
        super().__init__(module, info, who)
        head = {id(p) for p in module.continual_head.parameters()}
        norms = batch_norms(module)
        own = {id(p) for norm in norms.values() for p in norm.parameters()} if affine else set()
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in head | own)
        weights = {name: module.get_submodule(name).weight for name in self.layers}
        self.scores = nn.ParameterDict({key_of(n): nn.Parameter(torch.zeros_like(w)) for n, w in weights.items()})
        empty = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        self.bits, self.norms = TaskBits(empty, info.num_tasks), nn.Module()
        for name, norm in norms.items():
            for piece in (*_STATISTICS, *_AFFINE) if affine and norm.affine else _STATISTICS:
                start = getattr(norm, piece).detach()  # in the first row; that of task t is row t + 1
                rows = start.expand(info.num_tasks + 1, *start.shape).clone()
                self.norms.register_buffer(key_of(f"{name}.{piece}"), rows)
        self.growing = tuple(f"norms.{name}" for name, _ in self.norms.named_buffers())

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

    def norm(self, name: str, layer: Any) -> Mapping[str, Any]:
        """Statistics (and weight and bias) of a finished task; the current one has the layer's own."""
        if self.task >= self.finished.value:
            return {}
        return {piece: rows[self.task + 1] for piece, rows in self._rows_of(name)}

    def _rows_of(self, name: str) -> Iterator[tuple[str, Tensor]]:
        for piece in (*_STATISTICS, *_AFFINE):
            key = key_of(f"{name}.{piece}")
            if hasattr(self.norms, key):
                yield piece, self.norms.get_buffer(key)

    # ------------------------------------------------------------------ tasks

    def start_run(self, module: Any) -> None:
        """What is frozen stays in eval mode, but for batch norms, which take their statistics."""
        super().start_run(module)
        for part in module.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()
        for norm in batch_norms(module).values():
            norm.train()

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """New scores, and batch norms as they were before the first task."""
        self.reset_scores(module)
        for name, norm in batch_norms(module).items():
            for piece, rows in self._rows_of(name):
                getattr(norm, piece).copy_(rows[0])

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep a bit for each weight, and the batch norms."""
        task = self.finished.value
        for name in self.layers:
            self.bits.keep(name, task, self.chosen(self.scores[key_of(name)])[0])
        for name, norm in batch_norms(module).items():
            for piece, rows in self._rows_of(name):
                rows[task + 1] = getattr(norm, piece)
        super().end_task(module, data)
