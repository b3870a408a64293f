"""Find changes of the task that nobody tells: the loss rises far above what it was."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LossShift(nn.Module):
    """Watches a stream of losses for a jump, of one learner or of several that take turns (TAME, arXiv:2210.03869).

    The smoothed loss is ``S <- smoothing * L + (1 - smoothing) * S``. It has jumped when ``S > mean + deviations *
    std`` of the last ``window`` losses (and by more than rounding), once there are so many and ``cooldown`` more have
    come since the last :meth:`restart`. A constant loss never jumps. Two rules are ours: a loss beyond that bound is
    not one of them, or a jump would raise the bound before it is found; and the loss itself must be beyond it, or the
    smoothed one could still be where a falling loss has been. All state is in buffers.

    Args:
        window: Losses of a learner that are kept, at least 2.
        deviations: Standard deviations (of the population) above the mean, at least 0.
        smoothing: Weight of a new loss, in (0, 1].
        cooldown: Losses after a restart at which nothing is looked for, at least 0.
        learners: How many take turns.

    Raises:
        ValueError: If a number is out of its range.
    """

    losses: Tensor
    counts: Tensor
    smoothed: Tensor
    waited: Tensor

    def __init__(
        self,
        window: int = 100,
        deviations: float = 3.0,
        smoothing: float = 0.2,
        cooldown: int = 100,
        learners: int = 1,
    ) -> None:
        super().__init__()
        if window < 2:
            raise ValueError(f"`window` is {window}; a detector needs samples: give at least 2 losses.")
        if not 0 < smoothing <= 1:
            raise ValueError(f"`smoothing` is {smoothing}; give a weight in (0, 1].")
        for name, value in (("deviations", deviations), ("cooldown", cooldown)):
            if value < 0:
                raise ValueError(f"`{name}` is {value}; give a number of at least 0.")
        self.window, self.deviations, self.smoothing, self.cooldown = window, deviations, smoothing, cooldown
        self.register_buffer("losses", torch.zeros(learners, window, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(learners, dtype=torch.long))
        self.register_buffer("smoothed", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("waited", torch.tensor(0))

    def observe(self, loss: float, learner: int = 0) -> bool:
        """Take the next loss of the learner whose turn it is; whether it has jumped."""
        before, waited, bound = float(self.smoothed), int(self.waited) + 1, self.bound(learner)
        now = loss if waited == 1 else self.smoothing * loss + (1 - self.smoothing) * before
        self.smoothed.fill_(now)
        self.waited.fill_(waited)
        if loss <= bound:
            self.losses[learner, int(self.counts[learner]) % self.window] = loss
            self.counts[learner] += 1
        return waited > self.cooldown and min(now, loss) > bound

    def bound(self, learner: int = 0) -> float:
        """What a loss of this learner must not exceed; infinite before there is a window of them."""
        if int(self.counts[learner]) < self.window:
            return math.inf
        mean, deviation = float(self.losses[learner].mean()), float(self.losses[learner].std(correction=0))
        return mean + self.deviations * deviation + 1e-9 * abs(mean)

    def restart(self) -> None:
        """Begin to smooth and to wait anew, as another learner's turn begins."""
        self.smoothed.zero_()
        self.waited.zero_()
