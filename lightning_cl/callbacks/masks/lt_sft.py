"""LT-SFT: each task learns a sparse change of the base model, which adds up with others and is shipped alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.gradients import flat, write_flat
from lightning_cl.nn.guard import zero_gradients
from lightning_cl.nn.masks import ElementMask
from lightning_cl.nn.sparse_deltas import SparseDelta, largest_changes, weights_fingerprint
from lightning_cl.nn.weights import Snapshot
from lightning_cl.training import MethodModule, Phases, Step, TaskData
from lightning_cl.training.trained_body import trained_body


class SparseChanges(MethodModule):
    """The base, the start of the task, what it may change, and what every finished task changed."""

    places: Tensor
    values: Tensor

    def __init__(self, module: Any, num_tasks: int, method: LTSFT) -> None:
        super().__init__()
        weights = trained_body(module)
        self.disjoint, self.per_layer, self.share = method.disjoint, method.per_layer, method.share
        self.base, self.start = Snapshot(weights), Snapshot(weights)
        self.chosen, self.owned = ElementMask(weights), ElementMask(weights if method.disjoint else {})
        every = sum(weight.numel() for weight in weights.values())
        self.count = sum(map(self._count, weights.values())) if method.per_layer else max(int(method.share * every), 1)
        first = next(iter(weights.values()))
        self.register_buffer("places", torch.zeros(num_tasks, self.count, dtype=torch.long))
        self.register_buffer("values", torch.zeros(num_tasks, self.count, dtype=first.dtype))
        self.growing, self.sparse = ("places", "values"), Counter()
        self.dense, self.phases = method.dense, Phases(last=[("sparse", self._sparse_epochs)])

    def _sparse_epochs(self, task: Any) -> int:
        return task.epochs - max(round(self.dense * task.epochs), 1)  # type: ignore[no-any-return]

    def _count(self, weight: Tensor) -> int:
        return max(int(self.share * weight.numel()), 1)

    # ------------------------------------------------------------------ the two phases

    def start_task(self, module: Any, task: Any) -> None:
        """Everything may change again."""
        weights = trained_body(module)
        if not self.base.taken:
            self.base.take(weights)
        self.start.take(weights)
        self.sparse.set(0)

    def start_step(self, step: Step) -> None:
        """Choose what may change before the first step of the second phase; it begins where the task began."""
        if not self.sparse.value and self.phases.now(step.module) == "sparse":
            self._choose(step.module)
            with torch.no_grad():
                for name, weight in trained_body(step.module).items():
                    weight.copy_(self.start[name])
            for optimizer in step.module.trainer.optimizers:
                optimizer.state.clear()
            step.module.protect()

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """What must not change has no part in clipping."""
        zero_gradients(self.protected(module))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """All but the chosen elements, in the second phase."""
        weights = trained_body(module)
        return ((weights[name], ~mask) for name, mask in (self.chosen.items() if self.sparse.value else ()))

    @torch.no_grad()
    def _choose(self, module: Any) -> None:
        """The elements that moved farthest, among those that no task has where tasks must not overlap."""
        changes = {name: weight - self.start[name] for name, weight in trained_body(module).items()}
        free = {name: ~mask for name, mask in self.owned.items()} if self.disjoint else None
        groups = [{name: change} for name, change in changes.items()] if self.per_layer else [changes]
        for group in groups:
            count = self._count(next(iter(group.values()))) if self.per_layer else self.count
            for name, mask in largest_changes(group, count, free).items():
                self.chosen[name].copy_(mask)
        self.sparse.set(1)

    # ------------------------------------------------------------------ finished tasks

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Keep the task's change; the weights become the base with the changes of all tasks so far."""
        if not self.sparse.value:
            self._choose(module)
        weights, names, task = trained_body(module), self.chosen.names, data.task.index
        masks, start, now = (flat([part[name] for name in names]) for part in (self.chosen, self.start, weights))
        found = masks.nonzero().flatten()
        self.places[task, : len(found)] = found
        self.values[task, : len(found)] = (now - start)[found]
        start.index_add_(0, self.places[task], self.values[task].to(start))  # what is not filled adds 0
        write_flat(start, [weights[name] for name in names])
        for name, owned in self.owned.items():
            owned.logical_or_(self.chosen[name])
        self.sparse.set(0)

    def delta(self, task: int) -> SparseDelta:
        """What a finished task changed, to add, to subtract and to ship."""
        base = {name: weight.cpu() for name, weight in self.base.items()}
        zeros = {name: torch.zeros_like(weight, dtype=self.values.dtype) for name, weight in base.items()}
        changes = {name: zero.clone() for name, zero in zeros.items()}
        added = flat(changes.values()).index_add_(0, self.places[task].cpu(), self.values[task].cpu())
        write_flat(added, changes.values())
        return SparseDelta.between(zeros, changes, weights_fingerprint(base))


@dataclass(eq=False)
class LTSFT(TaskwiseMethod):
    """Composable sparse fine-tuning (LT-SFT; Ansell et al., ACL 2022, arXiv:2110.07560).

    In the first epochs of a task all weights are trained; the ``share`` of them that moved farthest, over all tensors
    together, is chosen. Then the weights go back to where the task began, the optimisers forget, and the chosen
    elements alone are trained in the remaining epochs, all others stay bit for bit. What came of it is the task's
    sparse change ``phi_t`` of the base model, and ``theta_0 + sum_t phi_t`` answers: summing up the tasks of a stream
    is a use of ours. The head is trained in both phases and is no part of it. :meth:`delta` gives the change of a task
    alone (8 bytes an element), :func:`~lightning_cl.nn.sparse_deltas.compose` adds and subtracts changes on the base
    model, and refuses those of another one. The learning rate in the second phase is that of your schedule.

    Works on any module; needs task boundaries; keeps two copies and a mask of the trained weights, and no sample. A
    task costs no more passes than its epochs.

    Args:
        share: Of all trained weights but the head's, in (0, 1], at least one element; 0.01 is the released code's.
        dense: Share of a task's epochs for the first phase, in (0, 1], rounded. With one epoch, or 1, there is no
            second phase: what moved farthest stays as it is, and the rest goes back.
        disjoint: Choose among elements that no earlier task has.
        per_layer: Choose the share of every weight tensor, and not of all together.

    Raises:
        ValueError: If a share is out of its range; when attached, if nothing but the head is trained.
    """

    state_key: ClassVar[str] = "lightning_cl.LTSFT"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    constrains: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"share": 0.5, "per_layer": True}  # so that every weight learns

    share: float = above(0, fraction(default=0.01))
    dense: float = above(0, fraction(default=0.5))
    disjoint: bool = False
    per_layer: bool = False

    def build(self, pl_module: Any, info: Any) -> SparseChanges:
        """Copies and masks of the weights that are trained when the method is attached."""
        if not trained_body(pl_module):
            raise ValueError(
                f"LTSFT changes trained weights besides the head, but this {type(pl_module).__name__} has none; train "
                "some of its backbone."
            )
        return SparseChanges(pl_module, info.num_tasks, self)

    @classmethod
    def delta(cls, pl_module: Any, task: int) -> SparseDelta:
        """The sparse change of a finished task of a module that this method was attached to.

        Args:
            pl_module: The LightningModule.
            task: Index of the task, from 0.
        """
        found: SparseDelta = cls.part_in(pl_module).delta(task)
        return found
