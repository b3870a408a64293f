"""Dynamically expandable representation: a new trunk for every task beside the frozen ones of earlier tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.architecture.growth import GrowingFeatures, GrowingMethod


@dataclass(eq=False)
class DynamicallyExpandable(GrowingMethod):
    """Dynamically expandable representation (DER; Yan et al., CVPR 2021, arXiv:2103.16788).

    Not dark experience replay, which is :class:`DER`. From the second task on, ``f(x) = [f_1(x), ..., f_t(x)]`` with
    the trunks ``f_1 .. f_{t-1}`` as they ended, in eval mode, and a new one that begins as the last one ended. The head
    ``W f(x) + b`` over all of them is trained, the part of the new trunk from random weights. Adds ``strength`` times
    the cross-entropy of an auxiliary head on ``f_t``, whose classes are those of the task and one for all old ones. At
    a task's end the head's new rows become ``mean |w_old| / mean |w_new|`` times as long, as in :class:`WA`: the paper
    trains the head anew on a balanced set instead, and prunes trunks by channel masks, which is not here. Needs task
    boundaries; made for a memory: put :class:`ExperienceReplay` beside it. A pass costs one forward pass more for
    every earlier task, and a checkpoint has as many copies of the trunk. Works on any module with a linear class head.

    Args:
        strength: Weight of the auxiliary loss, at least 0; the paper's.
        align: Whether new rows of the head are made as long as old ones at a task's end.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range; when attached, for a head that is not linear or a module that
            trains nothing before it; in ``setup``, on an online stream.
    """

    state_key: ClassVar[str] = "lightning_cl.DynamicallyExpandable"

    def build(self, pl_module: Any, info: Any) -> GrowingFeatures:
        """No copy yet."""
        self.check_head(pl_module)
        return GrowingFeatures(pl_module, info, self)
