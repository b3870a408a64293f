"""What methods share whose features grow with every task: copies of earlier trunks, and one head over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.head_kinds import check_linear
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.nn.head_layer import class_rows
from lightning_cl.nn.heads.alignment import align_norms
from lightning_cl.nn.weights import NamedTensors
from lightning_cl.training import MethodModule
from lightning_cl.training.loss_terms import zero_through
from lightning_cl.training.trunks import Trunks


class WideHead(MethodModule):
    """Logits from the features of all trunks side by side: the user's head reads the live one, ``columns`` the copies.

    The live weights stay the user's own parameters, and only copies are added, which are buffers: an optimiser from
    ``configure_optimizers`` and DDP know all that is trained from the first step on. ``columns`` have a place for every
    later task from the start; those in no use get a gradient of zero and do not move.

    Args:
        module: With a linear head.
        who: The method, for errors.
        copies: How many trunks there may be beside the live one.
        stage: See :class:`~lightning_cl.training.trunks.Trunks`.
    """

    makes_logits = True
    growing: tuple[str, ...] = ("columns",)

    def __init__(self, module: Any, who: str, copies: int, stage: str | None = None) -> None:
        super().__init__()
        rows = class_rows(module.continual_head)  # (C, D)
        self.trunks = Trunks(module, stage, who)
        self.columns = nn.Parameter(torch.zeros(max(copies, 1), *rows.shape, dtype=rows.dtype))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """The head's logits plus those of the copies."""
        known = self.features_of_copies(module)
        return self.known_to_all(logits if known is None else logits + wide_logits(known, self.columns))

    def features_of_copies(self, module: Any) -> list[Tensor] | None:
        """``(B, D)`` features of every copy in this pass; ``None``: there is none, or nobody reads the answer."""
        unread = module.continual.raw or self.trunks.passing
        return self.trunks.features(module) if len(self.trunks) and not unread else None

    def known_to_all(self, logits: Tensor) -> Tensor:
        """The same logits; in training all own parameters get a gradient of them, for which DDP waits."""
        learning = self.training and torch.is_grad_enabled()
        return logits + zero_through(self.parameters(), logits.device) if learning else logits

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Columns in no use yet, and those of classes that do not compete."""
        fixed = (~module.continual.mask.train_allowed)[None, :, None].expand_as(self.columns).clone()
        fixed[len(self.trunks) :] = True
        yield self.columns, fixed

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


def wide_logits(features: list[Tensor], columns: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(B, C)`` logits of the features of several trunks side by side.

    Args:
        features: ``(B, D)`` of each trunk.
        columns: ``(T, C, D)`` the part of the head for each trunk; those behind the last trunk are in no use.
        bias: ``(C,)``.
    """
    side_by_side = torch.cat(features, dim=1).to(columns.dtype)
    return F.linear(side_by_side, torch.cat(list(columns[: len(features)]), dim=1), bias)


class HeadCopy(NamedTensors):
    """A head over several trunks as it was: ``columns`` ``(T, C, D)`` and ``bias`` ``(C,)``."""

    def __init__(self, columns: Tensor) -> None:
        super().__init__({"columns": torch.zeros_like(columns), "bias": columns.new_zeros(columns.shape[1])})

    @torch.no_grad()
    def take(self, columns: Iterable[Tensor], bias: Tensor | None) -> None:
        """Copy the parts for the first trunks, and the bias."""
        for kept, part in zip(self["columns"], columns, strict=False):
            kept.copy_(part)
        if bias is not None:
            self["bias"].copy_(bias)

    def logits(self, features: list[Tensor]) -> Tensor:
        """``(B, C)`` of the features of as many trunks."""
        return wide_logits(features, self["columns"], self["bias"])


def uniform(shape: Any, width: int, generator: torch.Generator) -> Tensor:
    """Weights as a new linear layer with ``width`` inputs has them; on the CPU."""
    return torch.empty(shape).uniform_(-1 / sqrt(width), 1 / sqrt(width), generator=generator)


@dataclass(eq=False)
class GrowingMethod(SeenClassesMethod):
    """Base of methods with a new trunk for every task."""

    adds_loss: ClassVar[bool] = True
    boundaries: ClassVar[Boundaries] = "needed"
    needs_task_end: ClassVar[tuple[str, str]] = ("begins a new trunk", "a method that keeps one network")
    replaces_head: ClassVar[bool] = True
    owns_weights: ClassVar[bool] = True

    def check_head(self, pl_module: Any) -> None:
        """Refuse a head whose answers are not products with its rows."""
        check_linear(pl_module, type(self).__name__, "puts features of several trunks side by side", "use another head")
