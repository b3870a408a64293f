"""Dynamic sparse training: every task trains a sparse network whose connections die and grow, and freezes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least, choice, fraction
from lightning_cl.callbacks.masks.task_parts import TaskMethod, TaskParts
from lightning_cl.nn.bits import TaskBits, straight_through
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.masks import ElementMask
from lightning_cl.nn.sparse_topology import (
    Growth,
    death_rate,
    erk_densities,
    first_topology,
    new_topology,
    uniform_densities,
)
from lightning_cl.nn.weights import clear_moments
from lightning_cl.training import TaskData
from lightning_cl.training.step_seed import generator_of

Layout = Literal["uniform", "erk"]


class SparseNetworks(TaskParts):
    """The connections of the current task, those of finished ones, and what is frozen."""

    def __init__(self, module: Any, info: Any, method: DynamicSparseTraining) -> None:
        super().__init__(module, info, "DynamicSparseTraining")
        self.every, self.growth = method.every, method.growth
        weights = {name: module.get_submodule(name).weight for name in self.layers}
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        layout = uniform_densities if method.layout == "uniform" else erk_densities
        self.densities = layout(shapes, method.density)
        self.active, self.fired, self.frozen = ElementMask(weights), ElementMask(weights), ElementMask(weights)
        for _, mask in self.active.items():
            mask.fill_(True)  # until the first task, the network answers as it came
        self.bits, self.steps = TaskBits(dict(self.active.items()), info.num_tasks), Counter()
        self._scores: dict[str, Tensor] = {}  # gradients of the step that is being made, where they are needed
        self._total = 0

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """The task's connections; while it trains, all weights get the gradient that they would have as connections."""
        if self.task < self.finished.value:
            return {"weight": layer.weight.masked_fill(~self.bits.mask(name, self.task), 0)}
        return {"weight": straight_through(layer.weight.detach().masked_fill(~self.active[name], 0), layer.weight)}

    def start_run(self, module: Any) -> None:
        """Ask for the steps of the current task, over which fewer and fewer connections die."""
        super().start_run(module)
        stream = module.trainer.datamodule
        self._total = stream.steps_of_tasks()[stream.task_index]

    def start_task(self, module: Any, task: Any) -> None:
        """Draw connections, among all weights; those of earlier tasks may be among them."""
        self._total = module.trainer.datamodule.steps_of_tasks()[task.index]
        shapes = {name: mask.shape for name, mask in self.active.items()}
        drawn = first_topology(shapes, self.densities, self._generator(module, 0))
        for name, mask in self.active.items():
            mask.copy_(drawn[name])
            self.fired[name].copy_(mask)
        self.steps.set(0)

    @torch.no_grad()
    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Only the task's own connections learn."""
        due = (self.steps.value + 1) % self.every == 0 and self.growth == "gradient"
        for name, active in self.active.items():
            gradient = module.get_submodule(name).weight.grad
            if gradient is not None:
                if due:
                    self._scores[name] = gradient.clone()
                gradient.masked_fill_(~active | self.frozen[name], 0)

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """After the first task, connections of earlier ones and all that is neither weight nor head."""
        if self.finished.value:
            yield from ((module.get_submodule(n).weight, mask.clone()) for n, mask in self.frozen.items())
            yield from self.others(module, "weight")

    def after_step(self, module: Any, optimizer: Any) -> None:
        """After every so many steps connections die and grow."""
        self.steps.set(self.steps.value + 1)
        if self.steps.value % self.every == 0 and self.steps.value < self._total:
            self._change(module, optimizer)
        self._scores.clear()

    @torch.no_grad()
    def _change(self, module: Any, optimizer: Any) -> None:
        rate, generator = death_rate(self.steps.value, self._total), self._generator(module, self.steps.value)
        for name, active in self.active.items():
            weight, frozen = module.get_submodule(name).weight, self.frozen[name]
            score, fired = self._scores.get(name, torch.zeros_like(weight)), self.fired[name]
            found = new_topology(weight, active, rate, self.growth, generator, score, fired)
            changed = found != active
            weight.masked_fill_(changed & ~frozen, 0)  # what died, and what grows
            clear_moments(optimizer.state, weight, changed)
            active.copy_(found)
            fired |= found

    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep the task's connections, and freeze them."""
        for name, active in self.active.items():
            self.bits.keep(name, self.finished.value, active)
            self.frozen[name].logical_or_(active)
        super().end_task(module, data)

    def _generator(self, module: Any, step: int) -> torch.Generator:
        return generator_of(module, 0xD57, self.finished.value, step)


@dataclass(eq=False)
class DynamicSparseTraining(TaskMethod):
    """Dynamic sparse training (DST for continual learning; Yildirim et al., arXiv:2308.14831); task-incremental.

    Every task uses ``density`` of the weights, drawn at random among all; after every ``every`` steps the smallest of
    its connections die and as many others grow, from 0, at a rate that falls along a cosine from 0.5 to 0.005 over the
    task. Connections of earlier tasks may be among a task's, and stay as they are. A task answers with its own
    connections, so its answers stay, bit for bit. Counts are exact, and moments of what died or grew are cleared; the
    official code draws them with a probability and leaves Adam's moments. Biases, norms (affine and statistics), tokens
    and all else stay as the first task left them; the last weights are kept, and not those of the best epoch. Ten tasks
    with a density of 0.2 take about nine of ten weights, so that few of a later task's connections still learn.

    Works on modules of linear layers and convolutions; needs the end of a task and the task of every evaluation sample
    (``ContinualDataModule(task_identity=True)``); keeps a bit for each weight and task, and three bytes, and no sample.
    A step costs a masked copy of the weights, a change a sort of every layer.

    Args:
        density: Share of the weights that a task uses, in [0, 1]; the default is 80 % sparse.
        every: Optimiser steps between changes, at least 1; the official code's.
        layout: The same density in each layer (``"uniform"``), or more of it in small ones (``"erk"``).
        growth: What grows: ``"random"``, those with the largest ``"gradient"``, or at random among the ``"unfired"``
            that were not active in this task before. The paper's growth by momentum is left out.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; when attached, without a layer whose weights
            can be shared out, or with classes in several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.DynamicSparseTraining"
    needs_forward: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"every": 2}

    density: float = fraction(default=0.2)
    every: int = at_least(1, default=400)
    layout: Layout = choice(Layout, default="uniform")
    growth: Growth = choice(Growth, default="random")

    def build(self, pl_module: Any, info: Any) -> SparseNetworks:
        """Masks that leave all as it is, until the first task."""
        return SparseNetworks(pl_module, info, self)
