"""i-Blurry: equal numbers of classes per task, and classes that arrive in several tasks."""

from __future__ import annotations

from typing import ClassVar

from lightning_cl.datamodules.scenarios.blurry import Mode
from lightning_cl.datamodules.scenarios.si_blurry import SiBlurry


class IBlurry(SiBlurry):
    """Online stream with equal class counts and blurry task boundaries (i-Blurry, Koh et al., arXiv:2110.10031).

    As :class:`SiBlurry`, but every task owns as many disjoint and as many blurry classes as every other, gives the same
    share of its blurry samples to the pool, and gets an equal share of it. Where the numbers do not divide, the first
    tasks get one more. The lists that the paper published are replayed by :class:`BlurryFileLists`.

    The settings of the literature: 50 and 10 is i-Blurry-50-10; 100 and 0 plain disjoint tasks; 0 and 10 to 50 pure
    blurry; 0 and 100 an iid split.

    Args:
        num_tasks: Number of tasks.
        disjoint_class_pct: Share of the classes that are disjoint, 0 to 100; rounded down to a multiple of
            ``num_tasks``.
        blurry_sample_pct: Share of the blurry classes' samples that are dealt out again, 0 to 100.
        blur_select: Which ones: ``"random"``, or ``"dataset_order"``, as the published sampler does: a task's first
            ones; a rest of the pool that ``num_tasks`` does not divide is lost, with a warning.
        keep_all_classes: See :class:`SiBlurry`.
        class_order: All class ids, the disjoint ones first; ``None``: from the seed.
        seed: Seed of the stream's draws; ``None``: the stream's.

    Raises:
        ValueError: As :class:`SiBlurry`.
    """

    mode: ClassVar[Mode] = "fixed"
