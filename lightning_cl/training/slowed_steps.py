"""Steps of an optimiser of which some weights make a share only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from lightning_cl.nn.weights import StepScale
from lightning_cl.training.method_module import MethodModule


class SlowedSteps(MethodModule):
    """Base of methods that call :meth:`slow_down` in ``edit_gradients``, and ``super().after_step``."""

    _step: StepScale | None = None

    def slow_down(self, weights: Iterable[Tensor], share: float) -> None:
        """Let the coming step of an optimiser move some weights by a share of what it would."""
        if share < 1:
            self._step = StepScale(weights, share)
            self._step.remember()

    def after_step(self, module: Any, optimizer: Any) -> None:
        """Take back what is too much of the step."""
        if self._step is not None:
            self._step.edit()
        self._step = None
