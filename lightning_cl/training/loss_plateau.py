"""Find boundaries that nobody tells: the loss rises above its last plateau, and comes to rest again."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.counter import Counter
from lightning_cl.training.step import Step


class LossPlateau(nn.Module):
    """Watches a stream of losses for plateaus behind a peak (Aljundi et al., CVPR 2019, arXiv:1812.03596).

    A window of losses is a plateau if its mean and its standard deviation are below their bounds. A peak is a window
    whose mean exceeds mean + standard deviation of the last plateau; before the first plateau, a window whose mean
    exceeded those of the first plateau itself. It answers once for every plateau behind a peak, so never on a constant
    loss and once on each step from one constant to another below the bound. All state is in buffers.

    Args:
        window: Losses that are looked at, at least 2.
        mean: Bound of their mean, above 0.
        deviation: Bound of their standard deviation, above 0.

    Raises:
        ValueError: If a number is out of its range.
    """

    losses: Tensor
    last: Tensor
    highest: Tensor

    def __init__(self, window: int, mean: float, deviation: float) -> None:
        super().__init__()
        if window < 2:
            raise ValueError(f"`window` is {window}; give at least 2 losses.")
        for name, bound in (("mean", mean), ("deviation", deviation)):
            if not bound > 0:
                raise ValueError(f"`{name}` is {bound}; give a number above 0.")
        self.window, self.mean, self.deviation, self.seen = window, mean, deviation, Counter()
        self.answered = Counter(-window)
        self.register_buffer("losses", torch.zeros(window, dtype=torch.float64))
        # mean + standard deviation of the last plateau, and the highest mean of a window since
        self.register_buffer("last", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("highest", torch.tensor(0.0, dtype=torch.float64))

    def observe(self, loss: float) -> bool:
        """Take the next loss, not negative; whether a plateau behind a peak has begun."""
        self.losses[self.seen.value % self.window] = loss
        self.seen.set(self.seen.value + 1)
        if self.seen.value < self.window:
            return False
        mean, deviation = float(self.losses.mean()), float(self.losses.std(correction=0))
        rested = self.seen.value - self.answered.value >= self.window  # windows that began before are no new peak
        highest, last = max(float(self.highest), mean) if rested else 0.0, float(self.last)
        if mean >= self.mean or deviation >= self.deviation:
            self.highest.fill_(highest)
            return False
        self.highest.zero_()
        self.last.fill_(mean + deviation)
        behind = highest > (mean + deviation if math.isnan(last) else last)
        if behind:
            self.answered.set(self.seen.value)
        return behind


def check_window(window: int, stream: Any) -> None:
    """Refuse a stream that ends before a detector has its window of losses, so that it could find nothing.

    Args:
        window: Losses, one of each training batch.
        stream: The datamodule.

    Raises:
        ValueError: If the window is longer.
    """
    steps = sum(stream.num_batches(task.index) * task.epochs for task in stream.tasks)
    if window > steps:
        raise ValueError(
            f"`window` is {window} losses, but the stream has {steps:g} training batches, so no change of the task "
            "could ever be found; give a shorter window."
        )


def sample_losses(step: Step) -> Tensor:
    """``(n,)`` cross-entropy of the stream's own samples among the classes seen, without gradient.

    Args:
        step: Whose samples; replayed ones behind them are left out.
    """
    module = step.module
    count = len(module.trainer.datamodule.train_batch(module.trainer.fit_loop.batch_idx).index)
    allowed = module.continual.mask.eval_allowed
    logits = step.raw_logits.detach()[:count, : len(allowed)].masked_fill(~allowed, -math.inf)
    return F.cross_entropy(logits, step.targets[:count], reduction="none")


def stream_loss(step: Step, losses: Tensor) -> float:
    """The mean of ``(n,)`` :func:`sample_losses` over all processes; all of them call it."""
    return float(step.over_processes(losses.mean()))
