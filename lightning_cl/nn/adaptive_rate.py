"""A learning rate that goes up or down by what two rates in turn did to the loss (CLIB, arXiv:2110.10031)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.counter import Counter
from lightning_cl.nn.weights import StepEdit


class AdaptiveRate(nn.Module):
    """A factor of the learning rate, high and low in turn; the better of the two wins.

    Decreases of the loss under each are compared by Welch's one-sided t-test: where the low one did better both go down
    by ``step``, where the high one did, up; then all records begin anew.

    Args:
        step: The low factor is ``step`` times the high one, in (0, 1).
        length: Records of each that are compared, at least 2; older ones are dropped.
        significance: Of the test, in (0, 0.5).
    """

    records: Tensor
    counts: Tensor

    def __init__(self, step: float = 0.95, length: int = 10, significance: float = 0.05) -> None:
        super().__init__()
        self.step, self.significance = step, significance
        self.downs, self.low = Counter(), Counter()  # ``step ** downs`` is the high one
        self.register_buffer("records", torch.zeros(2, length, dtype=torch.float64))  # high, low; the latest last
        self.register_buffer("counts", torch.zeros(2, dtype=torch.long))

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by now."""
        return float(self.step ** (self.downs.value + self.low.value))

    def change(self, decrease: float | None) -> None:
        """Record what the loss fell by under the present factor (``None``: do not), compare, and go to the other."""
        if decrease is not None:
            row = self.records[self.low.value]
            row.copy_(torch.cat([row[1:], row.new_tensor([decrease])]))
            self.counts[self.low.value] += 1
        self.low.set(1 - self.low.value)
        if int(self.counts.min()) >= self.records.shape[1]:
            self.downs.set(self.downs.value + self._verdict())

    def _verdict(self) -> int:
        """1: the low factor did better; -1: the high one; 0: nobody knows."""
        from scipy.stats import ttest_ind

        high, low = self.records.tolist()
        p = ttest_ind(low, high, equal_var=False, alternative="greater").pvalue
        verdict = int(p < self.significance) - int(p > 1 - self.significance)
        if verdict:
            self.counts.zero_()
        return verdict


class StepFactor(StepEdit):
    """Makes optimiser steps longer or shorter: for SGD and Adam as if the learning rate were ``factor`` times as large.

    Args:
        weights: What an optimiser moves.
        factor: At least 0.
    """

    def __init__(self, weights: Any, factor: float) -> None:
        super().__init__(weights)
        self.factor = factor

    @torch.no_grad()
    def edit(self, *_: Any) -> None:
        """``w <- w_before + factor * (w - w_before)``."""
        for weight, before in zip(self.weights, self.before, strict=True):
            weight.copy_(torch.lerp(before, weight, self.factor))
