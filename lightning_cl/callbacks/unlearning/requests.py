"""Steps in the task of a request: the user's loss does not count while there is something to be forgotten."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.nn.precision import wide
from lightning_cl.training import MethodModule, Step


class ForgetRequests(MethodModule):
    """Knows which classes the current task asks to forget; plain training while there are none.

    Attributes:
        asked: ``(n,)`` class ids.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = torch.empty(0, dtype=torch.long)

    @property
    def loss_factor(self) -> float:  # type: ignore[override]
        """The loss of the user's step counts only while there is nothing to be forgotten."""
        return 0.0 if len(self.asked) else 1.0

    def start_run(self, module: Any) -> None:
        """Look up what is to be forgotten, also after a resume."""
        self._ask(module, module.trainer.datamodule.task)

    def start_task(self, module: Any, task: Any) -> None:
        """Look up what the task asks to forget."""
        self._ask(module, task)

    def _ask(self, module: Any, task: Any) -> None:
        self.asked = torch.tensor(task.forgets, dtype=torch.long, device=module.device)

    def is_asked(self, step: Step) -> Tensor:
        """``(B,)`` bool: the batch's samples of classes that are to be forgotten."""
        return torch.isin(step.targets, self.asked)

    def pushed(self, step: Step, values: Tensor, bound: float) -> Tensor:
        """``relu(bound - mean)`` of ``(B,)`` values over what is to be forgotten, by the mean over all processes."""
        mean = step.mean_over(self.is_asked(step), values)
        below = (step.over_processes(mean) < bound).to(mean.dtype)  # the same on all processes
        return below * (bound - mean)


def seen_losses(step: Step, raw_logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """``(B,)`` cross-entropy in nats of raw logits, over the classes that compete, in at least 32 bits.

    Args:
        step: The step.
        raw_logits: ``(B, C_head)``.
        labels: ``(B,)``; the step's own when ``None``.
    """
    logits = wide(step.module.continual.mask(raw_logits))
    return F.cross_entropy(logits, step.targets if labels is None else labels, reduction="none")
