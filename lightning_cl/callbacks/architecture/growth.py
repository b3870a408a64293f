"""What methods share whose features grow with every task: copies of earlier trunks, and one head over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import check_at_least
from lightning_cl.callbacks.base import ContinualMethod, require_stream
from lightning_cl.callbacks.boundaries import check_boundaries
from lightning_cl.callbacks.head_kinds import check_linear
from lightning_cl.mixins.base import TrainMask
from lightning_cl.namespace import LightningModule, Trainer
from lightning_cl.nn.head_layer import class_rows
from lightning_cl.nn.heads.alignment import align_norms
from lightning_cl.training import MethodModule, Step, TaskData
from lightning_cl.training.loss_terms import zero_through
from lightning_cl.training.trunks import Trunks


class WideHead(MethodModule):
    """Logits from the features of all trunks side by side: the user's head reads the live one, ``columns`` the copies.

    The live weights stay the user's own parameters, and only copies are added, which are buffers: an optimiser from
    ``configure_optimizers`` and DDP know all that is trained from the first step on. ``columns`` have a place for every
    later task from the start; those in no use are zero, get a gradient of zero, and stay zero.

    Args:
        module: With a linear head.
        who: The method, for errors.
        copies: How many trunks there may be beside the live one.
        stage: See :class:`~lightning_cl.training.trunks.Trunks`.
    """

    makes_logits = True
    growing = ("columns",)

    def __init__(self, module: Any, who: str, copies: int, stage: str | None = None) -> None:
        super().__init__()
        rows = class_rows(module.continual_head)  # (C, D)
        self.trunks = Trunks(module, stage, who)
        self.columns = nn.Parameter(torch.zeros(max(copies, 1), *rows.shape, dtype=rows.dtype))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """The head's logits plus those of the copies."""
        if self.training and torch.is_grad_enabled():  # DDP waits for a gradient of all
            logits = logits + zero_through(self.parameters(), logits.device)
        if not len(self.trunks) or module.continual.raw:  # only features are read
            return logits
        return logits + self.of_copies(self.trunks.features(module))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Columns in no use yet, and those of classes that do not compete."""
        fixed = (~module.continual.mask.train_allowed)[None, :, None].expand_as(self.columns).clone()
        fixed[len(self.trunks) :] = True
        yield self.columns, fixed

    def of_copies(self, features: list[Tensor]) -> Tensor:
        """``(N, C)`` logits of the copies' ``(N, D)`` features."""
        side_by_side = torch.cat(features, dim=1).to(self.columns.dtype)
        return F.linear(side_by_side, torch.cat(list(self.columns[: len(features)]), dim=1))

    @torch.no_grad()
    def grow(self, module: Any, generator: torch.Generator) -> None:
        """Copy the trunk, whose part of the head goes on as columns; the live one begins a new part, at random."""
        rows = class_rows(module.continual_head)
        self.trunks.add(module)
        self.columns[len(self.trunks) - 1] = rows
        rows.copy_(uniform(rows.shape, (len(self.trunks) + 1) * rows.shape[1], generator))

    @torch.no_grad()
    def align(self, module: Any, old: list[int], new: list[int]) -> None:
        """Make the new rows of the whole head as long as the old ones on average."""
        rows, used = class_rows(module.continual_head), self.columns[: len(self.trunks)]
        factor = align_norms(torch.cat([*used, rows], dim=1), old, new)
        rows[new] *= factor
        used[:, new] *= factor


def uniform(shape: Any, width: int, generator: torch.Generator) -> Tensor:
    """Weights as a new linear layer with ``width`` inputs has them; on the CPU."""
    return torch.empty(shape).uniform_(-1 / sqrt(width), 1 / sqrt(width), generator=generator)


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

    def __init__(self, module: Any, info: Any, method: GrowingMethod, stage: str | None = None) -> None:
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
        new = list(data.task.new_classes)
        old = sorted(set(data.task.seen_classes) - set(new))
        if self.aligns and old and new:
            self.align(module, old, new)


@dataclass(eq=False)
class GrowingMethod(ContinualMethod):
    """Base of methods with one more trunk for every task.

    Args:
        strength: Weight of the auxiliary loss, at least 0.
        align: Whether new rows of the head are made as long as old ones at a task's end.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range; when attached, for a head that is not linear or a module that
            trains nothing before it; in ``setup``, on an online stream.
    """

    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    owns_weights: ClassVar[bool] = True

    strength: float = 1.0
    align: bool = True
    _: KW_ONLY
    train_mask: TrainMask = "seen"
    reset_optimizer: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "strength")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse an online stream; attach to the module, once."""
        stream = require_stream(trainer, type(self).__name__)
        check_boundaries(stream, type(self).__name__, "begins a new trunk", "a method that keeps one network")
        super().setup(trainer, pl_module, stage)

    def check_head(self, pl_module: Any) -> None:
        """Refuse a head whose answers are not products with its rows."""
        check_linear(pl_module, type(self).__name__, "puts features of several trunks side by side", "use another head")
