"""Adaptive replay ratio: few updates a batch while the active units still fall, more once they are stable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import all_sum
from lightning_cl.nn.plasticity import by_unit
from lightning_cl.nn.unit_outputs import unit_layers, unit_outputs
from lightning_cl.training import Step
from lightning_cl.training.task_data import first_rows
from lightning_cl.training.update_schedule import UpdateSchedule, check_memory, updates_of


class ReplayRatio(UpdateSchedule):
    """Counts batches, and looks at the end of each window how many units are active."""

    sums: Tensor
    previous: Tensor

    def __init__(self, low: float, high: float, tolerance: float, window: int) -> None:
        super().__init__()
        self.low, self.high, self.tolerance, self.window = low, high, tolerance, window
        self.batches, self.updated, self.switched_at = Counter(), Counter(), Counter(-1)
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))  # active and all, in this window
        self.register_buffer("previous", torch.tensor(math.nan, dtype=torch.float64))

    def start_run(self, module: Any) -> None:
        """Check that there is a memory, if it will be needed."""
        check_memory(module, "AdaptiveReplayRatio", self.high)

    def updates(self, module: Any) -> int:
        """Those of the present ratio."""
        switched = self.switched_at.value
        ratio, number = (self.low, self.batches.value) if switched < 0 else (self.high, self.batches.value - switched)
        self.batches.set(self.batches.value + 1)
        return updates_of(number, ratio)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """After the user's step: look at the units in the last fifth of a window of such steps, and compare."""
        if self.switched_at.value < 0:
            place = self.updated.value % self.window
            self.updated.set(self.updated.value + 1)
            if place >= self.window - max(self.window // 5, 1):
                self._look(step)
            if place == self.window - 1:
                self._compare()
        return {}

    def _look(self, step: Step) -> None:
        module = step.module
        trainer = module.trainer
        real = int(trainer.datamodule.train_batch(trainer.fit_loop.batch_idx).real)
        with unit_outputs(unit_layers(module, module.continual_head)) as outputs:
            step.look(first_rows(step.inputs, max(real, 1)))
        calls = [by_unit(values) for layer in outputs.values() for values in layer]
        if real:
            self.sums[0] += sum((v > 0).sum() for v in calls)
            self.sums[1] += sum(v.numel() for v in calls)

    def _compare(self) -> None:
        active, every = all_sum(self.sums).tolist()
        share = active / every
        if is_stable(float(self.previous), share, self.tolerance):
            self.switched_at.set(self.batches.value)
        self.previous.fill_(share)
        self.sums.zero_()


def is_stable(previous: float, share: float, tolerance: float) -> bool:
    """Whether the share of active units has moved by at most ``tolerance``; not without an earlier one (NaN)."""
    return abs(share - previous) <= tolerance


@dataclass(eq=False)
class AdaptiveReplayRatio(ContinualMethod):
    """Adaptive replay ratio (Ma et al., ICLR 2024, arXiv:2310.07418), carried over from visual reinforcement learning.

    At first a batch gets ``low`` updates: with 0.5 every second batch is only remembered. The share of active units (of
    the outputs of activation layers, see ``PlasticityMeter``) is measured in eval mode on the stream's samples in the
    last fifth of every window of ``window`` updates; once it differs from the one of the window before by at most
    ``tolerance``, a batch gets ``high`` updates from then on, the first the user's step, the others steps of the same
    optimiser on batches of the memory alone. The switch is made once. Put ``ExperienceReplay`` beside it. Works on any
    module with a class head and automatic optimisation; needs no boundaries. Until the switch it costs a pass in every
    fifth update.

    Args:
        low: Updates a batch before the switch, above 0; 0.5 is the official code's.
        high: Updates a batch after it, above 0; 2 is the official code's.
        tolerance: At least 0; the official code's. With ``low=high=1`` it is plain fine-tuning.
        window: Updates, at least 2; chosen here (the official code: 50 episodes).

    Raises:
        ValueError: If a number is out of its range; when training starts, without a memory for more than one update.
    """

    state_key: ClassVar[str] = "lightning_cl.AdaptiveReplayRatio"
    adds_loss: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"high": 1.0, "window": 3, "tolerance": 0.1}

    low: float = above(0, default=0.5)
    high: float = above(0, default=2.0)
    tolerance: float = at_least(0, default=1e-3)
    window: int = at_least(2, default=100)

    def build(self, pl_module: Any, info: Any) -> ReplayRatio:
        """Counters."""
        return ReplayRatio(self.low, self.high, self.tolerance, self.window)
