"""Gaussians of all classes so far, and a second set of the head's weights aligned with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cl.nn.heads import ClassStatistics
from lightning_cl.nn.heads.aligned import AlignedHead
from lightning_cl.nn.heads.gaussians import Gaussians
from lightning_cl.training.slowed_steps import SlowedSteps


class AlignedGaussians(SlowedSteps):
    """What SLCA and MOS share; call :meth:`keep_gaussians` in the constructor.

    Attributes:
        statistics: Counts, means and covariances.
        task_of: ``(C,)`` the last task that held each class.
        aligned: The head's second set of weights.
    """

    growing = ("task_of",)
    task_of: Tensor

    def keep_gaussians(self, method: Any, head: Any, num_classes: int) -> None:
        """Begin without samples.

        Args:
            method: The callback, with ``covariance``, ``samples``, ``align_epochs`` and ``align_lr``.
            head: Whose features are counted.
            num_classes: Classes of the stream.
        """
        self.method = method
        self.statistics = ClassStatistics(num_classes, head.in_features, method.covariance)
        self.register_buffer("task_of", torch.zeros(num_classes, dtype=torch.long))
        self.aligned = AlignedHead(head)

    def known_classes(self) -> list[int]:
        """Those with samples."""
        found: list[int] = (self.statistics.counts > 0).nonzero().flatten().tolist()
        return found

    def align(self, head: Any, found: Gaussians, index: int, kept: Sequence[int] = (), **options: Any) -> None:
        """Train the second set of weights on draws from Gaussians.

        Args:
            head: The head.
            found: Of the classes that compete.
            index: Of the task that has ended; seeds the draws.
            kept: Classes whose rows begin as they were aligned last.
            options: More of :func:`~lightning_cl.nn.align_head`.
        """
        method, generator = self.method, torch.Generator().manual_seed(index)
        options |= {"epochs": method.align_epochs, "per_class": method.samples, "lr": method.align_lr}
        self.aligned.align(head, kept, found, generator, **options)
