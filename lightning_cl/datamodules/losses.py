"""Finds the first step with a loss that is not finite, without waiting for the device at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Steps between two looks at the loss on an accelerator, each of which waits for the device.
STEPS_BETWEEN_CHECKS = 50


class LossWatch:
    """Remembers, on the loss's own device, the first optimiser step at which the loss was NaN or infinite."""

    def __init__(self) -> None:
        self._first: Tensor | None = None  # -1: none

    def update(self, outputs: Any, step: int) -> bool:
        """Look at what ``training_step`` returned.

        Args:
            outputs: A loss, a dictionary with the key ``loss``, or nothing for a step that was left out.
            step: Number of optimiser steps so far.

        Returns:
            Whether it is time to ask for :attr:`first_bad_step`: always on a CPU, now and then on an accelerator.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return False
        if self._first is None:
            self._first = torch.full((), -1, device=loss.device)
        bad = ~torch.isfinite(loss.detach()).all() & (self._first < 0)
        self._first = torch.where(bad, step, self._first)
        return loss.device.type == "cpu" or step % STEPS_BETWEEN_CHECKS == 1

    @property
    def first_bad_step(self) -> int | None:
        """The first step with such a loss; waits for the device."""
        step = -1 if self._first is None else int(self._first)
        return None if step < 0 else step
