"""Evaluation passes in which the networks of all tasks answer, for methods that are not told the task."""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_cl.datamodules.batch_form import TARGET_KEYS
from lightning_cl.mixins.base import ContinualMixin
from lightning_cl.nn.views import fixed_views


class TaskInferenceMixin(ContinualMixin):
    """Repeats the inputs of an evaluation pass for every task whose network answers; the head's call joins them."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The user's, in one batch for all tasks: ``(B, ...)`` inputs become ``(T * B, ...)``, task after task.

        With several views of each image they are ``(T * V * B, ...)``, for each task view after view. Targets that are
        given by name, of which the network makes a loss, meet the ``(B, C)`` logits and stay.
        """
        part: Any = next(part for part in self.continual.parts.values() if getattr(part, "infers", False))
        branches = part.branches_now(self)
        if not branches:
            return super().forward(*args, **kwargs)
        targets = {name: kwargs.pop(name) for name in TARGET_KEYS if name in kwargs}
        views = 1 if self.continual.raw else part.views
        if views > 1:
            args, kwargs = apply_to_collection((args, kwargs), Tensor, partial(fixed_views, count=views))
        args, kwargs = apply_to_collection((args, kwargs), Tensor, partial(repeated, times=len(branches)))
        part.views_now = views
        try:
            with part.answering(branches):
                return super().forward(*args, **kwargs, **targets)
        finally:
            part.views_now = 1


def repeated(rows: Tensor, times: int) -> Tensor:
    """The rows (first dimension) several times, one whole after the other; a scalar as it is."""
    return rows.repeat(times, *(1,) * (rows.ndim - 1)) if rows.ndim and times > 1 else rows
