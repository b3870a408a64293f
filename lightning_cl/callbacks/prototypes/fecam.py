"""FeCAM: Mahalanobis distances to class means, with a covariance of each class's features."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch

from lightning_cl.callbacks.arguments import above, at_least, choice
from lightning_cl.callbacks.base import require_stream
from lightning_cl.callbacks.prototypes.feature_method import CountingMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.heads import MahalanobisHead


@dataclass(eq=False)
class FeCAM(CountingMethod):
    """FeCAM (Goswami et al., NeurIPS 2023, arXiv:2309.14062): classes differ in their covariance, not only the mean.

    Logits are ``-(x - m_c) R_c^-1 (x - m_c)``. ``R_c`` is the correlation matrix of
    ``C + a1 mean(diagonal) I + a2 mean(off-diagonal) (1 - I)`` with the unbiased covariance ``C``. Statistics are sums
    in float64, so any order, batches and split of the stream give the same. Needs no task boundaries unless the first
    task learns, and no sample kept; keeps ``C D^2`` numbers (472 MB for 100 classes of 768 channels), or ``D^2``
    shared, or ``C D`` diagonal. Every training image passes the network once outside of the first task, every
    evaluation image once a run. Works on any model with a class head.

    The default is the published setting for ViTs. For convolutional networks:
    ``FeCAM(off_diagonal=1.0, tukey=0.5, normalize=False, first_task="all")``.

    Args:
        covariance: ``"class"``: one matrix for each class; ``"shared"`` (the paper's common one): one within all
            classes; ``"diagonal"``: variances of each class, divided by their mean.
        shrinkage: ``a1``, at least 0.
        off_diagonal: ``a2``, at least 0.
        tukey: Power that non-negative features are raised to, above 0; 1: as they are.
        normalize: Scale features to unit length before statistics are taken, and the means not. ``False``: statistics
            are of features as they are, and features and means are scaled when they are compared.
        first_task: ``"none"``: the network stays as it is; ``"all"``: it learns the first task by the user's step.
        train_mask: Which classes compete in the training loss of the first task.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range, the matrices do not fit into memory, or a class has one training
            sample, from which no covariance follows; if the first task is to learn on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.FeCAM"
    advice: ClassVar[str] = 'use `covariance="shared"` or "diagonal"'

    covariance: Literal["class", "shared", "diagonal"] = choice(("class", "shared", "diagonal"), default="class")
    shrinkage: float = at_least(0, default=1.0)
    off_diagonal: float = at_least(0, default=0.0)
    tukey: float = above(0, default=1.0)
    normalize: bool = True
    first_task: Literal["none", "all"] = choice(("none", "all"), default="none")
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that each class has a covariance, and attach."""
        stream = require_stream(trainer, type(self).__name__)
        if stage == "fit" and self.covariance != "shared":
            labels = stream.source.train_labels[torch.cat(list(stream.layout.train_index)).unique()]
            single = (torch.bincount(labels) == 1).nonzero().flatten().tolist()
            if single:
                raise ValueError(
                    f"the classes {single} have one training sample each, from which no covariance follows; use "
                    'FeCAM(covariance="shared"), or give more samples.'
                )
        super().setup(trainer, pl_module, stage)

    def bank(self, num_classes: int, width: int) -> MahalanobisHead:
        """Means and covariances."""
        numbers = self.shrinkage, self.off_diagonal, self.tukey
        return MahalanobisHead(num_classes, width, self.covariance, *numbers, normalize=self.normalize)

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """The sums and inverses, and three matrices while one is inverted."""
        matrices = {"class": num_classes * width, "shared": width, "diagonal": num_classes}[self.covariance]
        return 8 * width * (2 * matrices + 3 * width + 2 * num_classes)
