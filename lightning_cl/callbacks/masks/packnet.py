"""PackNet: every task keeps the largest of the weights that were free, and leaves the others to later ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import fraction
from lightning_cl.callbacks.masks.task_parts import TaskMethod, TaskParts
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.guard import zero_gradients
from lightning_cl.nn.masks import smallest_elements
from lightning_cl.nn.weights import NamedTensors
from lightning_cl.training import Phases, Step, TaskData
from lightning_cl.training.phases import last_epochs

#: An owner is a byte, and 0 is a weight that no task has.
MOST_TASKS = 255


class WeightOwners(TaskParts):
    """For every weight of the layers the task that has it, counted from 1; 0 while it is free."""

    def __init__(self, module: Any, info: Any, prune: float, retrain: float) -> None:
        super().__init__(module, info, "PackNet")
        self.prune, self.pruned = prune, Counter()
        self.phases = Phases(last=[("retraining", partial(last_epochs, retrain))])
        weights = ((name, module.get_submodule(name).weight) for name in self.layers)
        self.owners = NamedTensors({name: torch.zeros_like(w, dtype=torch.uint8) for name, w in weights})

    def weights(self, name: str, layer: Any) -> Mapping[str, Any]:
        """A finished task has its own weights and those of earlier ones; the current one has the free ones, too."""
        task = self.task
        if task >= self.finished.value:
            return {}
        owner = self.owners[name]
        return {"weight": layer.weight.masked_fill((owner == 0) | (owner > task + 1), 0)}

    def start_step(self, step: Step) -> None:
        """Prune before the first step of the epochs that are left for retraining."""
        if not self.pruned.value and self.phases.now(step.module) == "retraining":
            self._prune(step.module)
            step.module.protect()

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Weights that must not move have no part in clipping."""
        zero_gradients(self._frozen(module))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights of other tasks, once pruned the free ones, too; after the first task all but weights and head."""
        yield from self._frozen(module)
        if self.finished.value:
            yield from self.others(module, "weight")

    def end_task(self, module: Any, data: TaskData) -> None:
        """Prune, where nothing is left for retraining."""
        if not self.pruned.value:
            self._prune(module)
        self.pruned.set(0)
        super().end_task(module, data)

    def _frozen(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for name, owner in self.owners.items() if self.finished.value or self.pruned.value else ():
            mine = owner == self.finished.value + 1
            yield module.get_submodule(name).weight, ~mine if self.pruned.value else owner > 0

    @torch.no_grad()
    def _prune(self, module: Any) -> None:
        """The task gets the largest of the free weights of every layer; the others become 0."""
        for name, owner in self.owners.items():
            weight, free = module.get_submodule(name).weight, owner == 0
            small = smallest_elements(weight, self.prune, free)
            owner[free & ~small] = self.finished.value + 1
            weight.masked_fill_(small, 0)
        self.pruned.set(1)


@dataclass(eq=False)
class PackNet(TaskMethod):
    """PackNet (Mallya and Lazebnik, CVPR 2018, arXiv:1711.05769); task-incremental.

    A task trains the weights that are free; then in every layer the ``int(prune * n)`` smallest by magnitude of these
    ``n`` become 0 and stay free, the others are the task's for good and are trained on alone for the last ``retrain``
    of the task's epochs. A task answers with its own weights and those of earlier ones, so its answers stay, bit for
    bit. The classes of a task are its head. Biases, norms (affine and statistics), tokens and all else stay as the
    first task left them. The learning rate in the retraining is that of your schedule (the paper's is a tenth).

    Works on modules of linear layers and convolutions; needs the end of a task and the task of every evaluation sample
    (``ContinualDataModule(task_identity=True)``); keeps a byte for each weight, for up to 255 tasks together, and no
    sample. A step costs a masked copy of the weights.

    Args:
        prune: Share of a task's weights that it leaves to later ones, in [0, 1]; the paper takes 0.75 for a network of
            fine-grained tasks and 0.5 for large ones. ``prune ** t`` of the weights are free after ``t`` tasks.
        retrain: Share of a task's epochs for retraining, rounded; the paper's is 10 of 30. With one epoch there is
            none, and the weights are pruned at its end.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose weights can be shared out,
            with classes in several tasks, or for more than 255 tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.PackNet"
    needs_forward: ClassVar[bool] = False

    prune: float = fraction(default=0.75)
    retrain: float = fraction(default=1 / 3)

    def build(self, pl_module: Any, info: Any) -> WeightOwners:
        """All weights are free."""
        if info.num_tasks > MOST_TASKS:
            raise ValueError(
                f"PackNet notes the task of a weight in a byte, for up to {MOST_TASKS} tasks, but the stream has "
                f"{info.num_tasks}; use fewer tasks, or another method."
            )
        return WeightOwners(pl_module, info, self.prune, self.retrain)
