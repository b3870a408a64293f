"""Piggyback: every task switches weights of one pre-trained network off that never change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.arguments import above, check_above
from lightning_cl.callbacks.masks.binary_masks import BinaryMasks
from lightning_cl.callbacks.masks.task_parts import TaskMethod


class ThresholdMasks(BinaryMasks):
    """A weight is used whose score is above a threshold."""

    def __init__(self, module: Any, info: Any, start: float, threshold: float) -> None:
        super().__init__(module, info, "Piggyback", affine=True)
        self.start, self.threshold = start, threshold
        self.reset_scores(module)

    def reset_scores(self, module: Any) -> None:
        """All weights are used."""
        for scores in self.scores.values():
            scores.data.fill_(self.start)

    def chosen(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient goes straight through to the scores."""
        return scores > self.threshold, scores


@dataclass(eq=False)
class Piggyback(TaskMethod):
    """Piggyback (Mallya et al., ECCV 2018, arXiv:1801.06519); task-incremental.

    The network is frozen as it comes. Each task trains a score for every weight of the layers, ``start`` at first, with
    the gradient of the mask ``score > threshold`` that the weight is multiplied by, and keeps the mask, one bit a
    weight. The classes of a task are its head. Batch norms (affine and statistics) are each task's own and begin with
    the pre-trained ones; biases and all else stay. Earlier answers stay bit for bit.

    Needs a pre-trained network of linear layers and convolutions, the end of a task and the task of every evaluation
    sample (``ContinualDataModule(task_identity=True)``); keeps no sample. A step costs a product for each weight, and
    trains as many scores as there are weights. The learning rate is that of your optimiser (the paper's is 1e-4 for
    Adam, with which a weight is off after 50 steps of one sign; with another rate, change ``start`` in proportion).

    Args:
        start: Score at first, above ``threshold``: all weights are used. Both defaults are the paper's.
        threshold: A weight is used whose score is above it, above 0.

    Raises:
        ValueError: If a number is out of its range; when attached, without a layer whose weights can be switched off,
            or with classes in several tasks; in ``setup``, on a stream without task identity.
    """

    state_key: ClassVar[str] = "lightning_cl.Piggyback"
    needs_forward: ClassVar[bool] = False

    start: float = 0.01
    threshold: float = above(0, default=0.005)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, self.threshold, "start")

    def build(self, pl_module: Any, info: Any) -> ThresholdMasks:
        """All weights are used."""
        return ThresholdMasks(pl_module, info, self.start, self.threshold)
