"""Finds the first step with a loss or weights that are not finite, without waiting for the device at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.task import Task
from lightning_cl.namespace import LightningModule, Trainer

#: Steps between two looks at the loss on an accelerator, each of which waits for the device.
STEPS_BETWEEN_CHECKS = 50


class FiniteLossCheck:
    """Remembers the first optimiser step at which the loss was NaN or infinite, on the loss's own device."""

    def __init__(self) -> None:
        self._first: int | Tensor = -1  # none; a tensor where asking means waiting

    def update(self, outputs: Any, step: int) -> bool:
        """Look at what ``training_step`` returned.

        Args:
            outputs: A loss, a dictionary with the key ``loss``, or nothing for a step that was left out.
            step: Number of optimiser steps so far.

        Returns:
            Whether it is time to ask for :attr:`first_bad_step`: always on a CPU, now and then on an accelerator.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            return False
        if loss.device.type == "cpu":
            good = math.isfinite(loss.item()) if loss.numel() == 1 else bool(torch.isfinite(loss).all())
            if self._first == -1 and not good:
                self._first = step
            return True
        if not isinstance(self._first, Tensor):
            self._first = torch.full((), self._first, device=loss.device)
        bad = ~torch.isfinite(loss.detach()).all() & (self._first < 0)
        self._first = torch.where(bad, step, self._first)
        return step % STEPS_BETWEEN_CHECKS == 1

    @property
    def first_bad_step(self) -> int | None:
        """The first step with such a loss; waits for the device."""
        step = int(self._first)
        return None if step < 0 else step

    def check(self, trainer: Trainer, task: Task) -> None:
        """Stop all processes if there was such a step in one of them.

        Raises:
            FloatingPointError: With task, epoch and step.
        """
        step, what = self.first_bad_step, "the training loss is not finite"
        if step is not None:
            state = getattr(trainer.lightning_module, "continual", None)
            terms: dict[str, Tensor] = getattr(state, "last_terms", {})
            bad = [f"`{name}`" for name, value in terms.items() if not bool(value.isfinite())]
            what += f" (the methods' terms {', '.join(bad)} are not)" if bad else ""
        _stop_together(trainer, task, step, what)


def check_weights(trainer: Trainer, pl_module: LightningModule, task: Task) -> None:
    """Stop before weights that are not finite are saved or evaluated: the loss tells only one step later.

    Raises:
        FloatingPointError: With task, epoch and step.
    """
    device = trainer.strategy.root_device
    trained = {name: p for name, p in pl_module.named_parameters() if p.requires_grad}
    # of a parameter that a strategy splits, this process's part
    finite = [torch.isfinite(getattr(p, "to_local", p.detach)()).all().to(device) for p in trained.values()]
    known = torch.stack(finite).tolist() if finite else []  # one copy to the host, not one for each tensor
    bad = [name for name, good in zip(trained, known, strict=True) if not good]
    named, step = (f": `{bad[0]}`", trainer.global_step) if bad else ("", None)
    _stop_together(trainer, task, step, f"a finite loss left weights that are not finite{named}")


def _stop_together(trainer: Trainer, task: Task, step: int | None, what: str) -> None:
    """All processes stop, or the others would wait for the one that does."""
    if trainer.world_size > 1:
        found = torch.tensor(-1 if step is None else step, device=trainer.strategy.root_device)
        largest = int(trainer.strategy.reduce(found, reduce_op="max"))
        step = None if largest < 0 else largest
    if step is not None:
        raise FloatingPointError(
            f"{what} in task {task.index}, epoch {trainer.current_epoch} "
            f"(epoch {trainer.current_epoch - task.first_epoch} of the task), optimiser step {step}. "
            "No checkpoint was written after that step; those of before are good. Common causes: a learning rate "
            "that is too high, the logarithm of a probability that may be 0, and overflow in 16-bit precision."
        )
