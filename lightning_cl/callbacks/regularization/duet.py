"""DuET: what a task changed is merged with what earlier ones did, layer by layer, and moves on in their direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least, choice, fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.task_vectors import MergeRule, away_from, old_share, ties
from lightning_cl.nn.weights import Snapshot, trained
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.trained_body import trained_body


class TaskVectors(MethodModule):
    """The weights at first, those that the last task left, and the way of the last task."""

    def __init__(self, module: Any, method: DuET) -> None:
        super().__init__()
        self.rule, self.keep = method.rule, method.keep
        self.base, self.gain, self.strength = method.base, method.gain, method.consistency
        weights = trained_body(module)
        self.first, self.last, self.direction = Snapshot(weights), Snapshot(weights), Snapshot(weights, zero=True)
        self.finished = Counter()

    def start_task(self, module: Any, task: Any) -> None:
        """Keep the weights with which the fit begins."""
        if not self.first.taken:
            self.first.take(trained_body(module))
            self.last.take(trained_body(module))

    @torch.no_grad()
    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Add the gradient of ``consistency * sum relu(-(w - w_last) d)``, with the last task's way ``d``."""
        if not self.finished.value or not self.strength:
            return
        weights = trained(module, optimizer)
        for name, direction in self.direction.items():
            weight = weights.get(name)
            if weight is not None and weight.grad is not None:
                weight.grad.add_(away_from(direction, weight - self.last[name]), alpha=self.strength)

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Merge, and keep what came of it and its way from the weights before."""
        weights = trained_body(module)
        for name, last in self.last.items():
            if self.finished.value:
                weights[name].copy_(self._merged(self.first[name], last, weights[name]))
            self.direction[name].copy_(weights[name] - last)
        self.last.take(weights)
        self.finished.set(self.finished.value + 1)

    def _merged(self, first: Tensor, last: Tensor, now: Tensor) -> Tensor:
        if self.rule == "ties":
            return first + ties(torch.stack([last - first, now - first]), self.keep)
        if self.rule == "average":  # of all tasks so far
            share = now.new_tensor(self.finished.value / (self.finished.value + 1))
        else:
            share = old_share(last - first, now - first, self.base, self.gain)
        return torch.lerp(now, last, share)


@dataclass(eq=False)
class DuET(TaskwiseMethod):
    """DuET-style task arithmetic (arXiv:2506.21260, ICCV 2025): of that work what works on any model.

    At every task's end but the first, for each weight with the changes ``v_old`` (what earlier tasks left) and
    ``v_new`` (now) from the weights at first, ``w <- w_0 + a v_old + (1 - a) v_new`` with ``a = base + gain
    tanh((|v_old| - |v_new|) / |v_old + v_new|)``. While training, ``consistency * sum relu(-(w - w_last) d)`` is added
    as its gradient: a weight is not to move against the way ``d`` that it took in the task before. The paper merges the
    shared part of a detector and joins the heads; here all trained weights but the class head's are merged, and batch
    norm's statistics stay those of the last task. Its own distillation is a method beside it (``LwF``,
    ``FeatureDistillation``). It has no published code, and the constants are not in public text.

    Works on any module, with a head or without; needs task boundaries, keeps three copies of the merged weights and no
    sample, and costs no pass.

    Args:
        base: Share of earlier tasks where both changed a weight alike, in [0, 1]; of our own.
        gain: How far the share goes from ``base``, in [0, 1]; of our own. ``base=0, gain=0, consistency=0`` is plain
            fine-tuning.
        consistency: Weight of the term, at least 0; of our own.
        rule: ``"duet"``; ``"average"``: the mean over all tasks so far; ``"ties"``: TIES-merging (arXiv:2306.01708).
        keep: Share of each change that TIES keeps, in (0, 1]; 0.2 is its paper's.

    Raises:
        ValueError: If a number is out of its range or the rule unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.DuET"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    rewrites_weights: ClassVar[bool] = True
    constrains: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False

    base: float = fraction(default=0.5)
    gain: float = fraction(default=0.3)
    consistency: float = at_least(0, default=1.0)
    rule: MergeRule = choice(MergeRule, default="duet")
    keep: float = above(0, fraction(default=0.2))

    def build(self, pl_module: Any, info: Any) -> TaskVectors:
        """Copies of the weights that are trained when the method is attached."""
        return TaskVectors(pl_module, self)
