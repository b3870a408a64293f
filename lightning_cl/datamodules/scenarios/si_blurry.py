"""Si-Blurry: random numbers of classes and samples per task, and classes that arrive in several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from lightning_cl.datamodules.scenarios.base import Scenario, warn
from lightning_cl.datamodules.scenarios.blurry import (
    BlurryReport,
    BlurrySetting,
    BlurSelect,
    Mode,
    blurry_stream,
    losses,
)
from lightning_cl.datamodules.task import Order


class SiBlurry(Scenario):
    """Online stream with random task sizes and blurry task boundaries (Si-Blurry, Moon et al., arXiv:2308.09303).

    A part of the classes is disjoint: all of their samples arrive in one task. The others are blurry: a share of their
    samples is dealt out again over all tasks. Random cuts decide how many classes of each kind a task has and how many
    samples it gives to the others, so a task may have no class of its own. Every sample arrives exactly once.

    The settings of the literature: 50 and 10 is Si-Blurry; 100 and 0 disjoint tasks of random size.

    Args:
        num_tasks: Number of tasks.
        disjoint_class_pct: Share of the classes that are disjoint, 0 to 100 (``m`` in the paper, ``n`` in its code);
            rounded down to a multiple of ``num_tasks``.
        blurry_sample_pct: Share of the blurry classes' samples that are dealt out again, 0 to 100 (``n`` in the paper,
            ``m`` in its code). Some return to the task that they came from.
        blur_select: Which ones: ``"random"``, or as the published code does ``"dataset_order"``, a task's first ones.
            On data that are sorted by class those are a few whole classes, and the stream is far less blurry.
        keep_all_classes: Where ``num_tasks`` does not divide the classes, the rest is blurry (disjoint if all classes
            shall be). ``False``, as the published code does: left out of the stream, with a warning.
        class_order: All class ids, the disjoint ones first; ``None``: from the seed.
        seed: Seed of the stream's draws; ``None``: the stream's. With ``blur_select="dataset_order"`` and
            ``keep_all_classes=False`` the same seed gives the published code's stream.

    Raises:
        ValueError: If an argument is out of range; and from :meth:`train_tasks` if there are more tasks than classes,
            or ``blur_select="dataset_order"`` leaves a task without a sample. Otherwise such a task is given a class
            of the task with the most.
    """

    order: Order = "stream"
    mode: ClassVar[Mode] = "varying"

    def __init__(
        self,
        num_tasks: int = 5,
        disjoint_class_pct: int = 50,
        blurry_sample_pct: int = 10,
        blur_select: BlurSelect = "random",
        keep_all_classes: bool = True,
        class_order: Sequence[int] | None = None,
        seed: int | None = None,
    ) -> None:
        self.setting = BlurrySetting(
            num_tasks, disjoint_class_pct, blurry_sample_pct, blur_select, keep_all_classes, class_order, self.mode
        )
        self.seed = seed

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples in order of arrival, none twice; warns of what is left out."""
        tasks, report = self._stream(labels, num_classes, seed)
        message = losses(type(self).__name__, self.setting, report)
        if message:
            warn(message)
        return tasks

    def report(self, labels: Tensor, num_classes: int, seed: int = 0) -> BlurryReport:
        """What the stream is made of: classes, quotas, and what was dropped, lost or moved.

        Args:
            labels: ``(N,)`` int64 labels of the training split.
            num_classes: Number of classes.
            seed: Seed of the stream, used unless the scenario has its own.
        """
        return self._stream(labels, num_classes, seed)[1]

    def _stream(self, labels: Tensor, num_classes: int, seed: int) -> tuple[list[Tensor], BlurryReport]:
        return blurry_stream(labels, num_classes, self.setting, seed if self.seed is None else self.seed)
