"""Dynamically expandable representation: a new trunk for every task beside the frozen ones of earlier tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.architecture.growth import GrowingMethod, WideHead, uniform
from lightning_cl.callbacks.arguments import at_least
from lightning_cl.training import Step, TaskData


class NewcomerHead(nn.Module):
    """An auxiliary head over the classes of the current task and one more, which stands for all old classes.

    Attributes:
        weight: ``(1 + C, D)``; the first row is that of all old classes.
    """

    growing = ("weight", "bias")

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1 + num_classes, width))
        self.bias = nn.Parameter(torch.zeros(1 + num_classes))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Begin a task."""
        for parameter in (self.weight, self.bias):
            parameter.copy_(uniform(parameter.shape, self.weight.shape[1], generator))

    def loss(self, features: Tensor, targets: Tensor, new: Tensor) -> Tensor:
        """Cross-entropy of ``(B, D)`` features with their new class, or with the place of all old ones.

        Args:
            features: Of the newest trunk.
            targets: ``(B,)`` class ids.
            new: ``(n,)`` sorted ids of the task's new classes.
        """
        used = torch.cat([new.new_zeros(1), new + 1])
        place = torch.where(torch.isin(targets, new), torch.searchsorted(new, targets) + 1, 0)
        return F.cross_entropy(F.linear(features.to(self.weight.dtype), self.weight[used], self.bias[used]), place)


class GrowingFeatures(WideHead):
    """One more trunk for every task, an auxiliary head that trains it, and weight alignment at a task's end."""

    def __init__(self, module: Any, info: Any, method: DynamicallyExpandable, stage: str | None = None) -> None:
        super().__init__(module, type(method).__name__, info.num_tasks - 1, stage)
        self.strength, self.aligns = method.strength, method.align
        head = module.continual_head
        self.newcomers = NewcomerHead(head.out_features, head.in_features)

    def start_task(self, module: Any, task: Any) -> None:
        """From the second task on, a new trunk begins as the last one ended."""
        if task.index:
            generator = torch.Generator().manual_seed(task.index)
            self.grow(module, generator)
            self.newcomers.reset(generator)

    def losses(self, step: Step) -> Mapping[str, Tensor]:
        """``strength * CE`` of the auxiliary head, from the second task on."""
        new = step.task.new_classes
        if not len(self.trunks) or not self.strength or not new:
            return {}
        ids = torch.tensor(sorted(new), device=step.targets.device)
        return {"auxiliary": self.strength * self.newcomers.loss(step.features, step.targets, ids)}

    def end_task(self, module: Any, data: TaskData) -> None:
        """Align the rows of the task's new classes."""
        old, new = list(data.task.old_classes), list(data.task.new_classes)
        if self.aligns and old and new:
            self.align(module, old, new)


@dataclass(eq=False)
class DynamicallyExpandable(GrowingMethod):
    """Dynamically expandable representation (DER; Yan et al., CVPR 2021, arXiv:2103.16788).

    Not dark experience replay, which is :class:`DER`. From the second task on, ``f(x) = [f_1(x), ..., f_t(x)]`` with
    the trunks ``f_1 .. f_{t-1}`` as they ended, in eval mode, and a new one that begins as the last one ended. The head
    ``W f(x) + b`` over all of them is trained, the part of the new trunk from random weights. Adds ``strength`` times
    the cross-entropy of an auxiliary head on ``f_t``, whose classes are those of the task and one for all old ones. At
    a task's end the head's new rows become ``mean |w_old| / mean |w_new|`` times as long, as in :class:`WA`: the paper
    trains the head anew on a balanced set instead, and prunes trunks by channel masks, which is not here. Needs task
    boundaries; made for a memory: put :class:`ExperienceReplay` beside it. A pass costs one forward pass more for
    every earlier task, and a checkpoint has as many copies of the trunk. Works on any module with a linear class head.

    Args:
        strength: Weight of the auxiliary loss, at least 0; the paper's.
        align: Whether new rows of the head are made as long as old ones at a task's end.

    Raises:
        ValueError: If a number is out of its range; when attached, for a head that is not linear or a module that
            trains nothing before it; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.DynamicallyExpandable"
    needs_forward: ClassVar[bool] = False

    strength: float = at_least(0, default=1.0)
    align: bool = True

    def build(self, pl_module: Any, info: Any) -> GrowingFeatures:
        """No copy yet."""
        self.check_head(pl_module)
        return GrowingFeatures(pl_module, info, self)
