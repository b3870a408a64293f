"""Losse-FTL's learner as a classifier: ridge regression on sparse codes of a frozen network's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.prototypes.feature_method import CountingMethod
from lightning_cl.nn.heads.soft_grid import SoftGrid, SoftGridHead


@dataclass(eq=False)
class LosseFTL(CountingMethod):
    """Losse-FTL-style follow the leader (Liu et al., ICLR 2024, arXiv:2401.13034): an analytic head on sparse codes.

    Of that work the online learner, on any frozen network; its world model and planning need a simulator and are not
    here. Features ``f`` that reach the head are put on ``grids`` random planes, ``sigmoid(f P)``, and shared out to the
    four nodes around them on each (:class:`~lightning_cl.nn.heads.SoftGrid`); logits are ``phi (sum phi^T phi + ridge
    I)^-1 sum phi^T y`` with one-hot ``y``. The sums are in float64, so the weights are those of joint training after
    any order, batches or split of the stream, and samples whose codes share no node do not change each other's answers.
    For numbers instead of classes there is :class:`~lightning_cl.nn.heads.OnlineRidge`.

    Needs no task boundaries and no sample kept; keeps ``M^2 + M C`` numbers for ``M = grids (bins + 1)^2`` (120 MB for
    the defaults). Every training image passes the network once, in a task's first epoch, every evaluation image once a
    run. Works on any model with a class head. The encoding is rebuilt from its description: there is no released code.

    Args:
        grids: Planes, at least 1.
        bins: Cells along the edge of a plane, at least 1.
        ridge: Strength of the regularisation, above 0.
        seed: Of ``P``.

    Raises:
        ValueError: If a number is out of its range, or the matrices do not fit into memory.
    """

    state_key: ClassVar[str] = "lightning_cl.LosseFTL"
    small: ClassVar[dict[str, Any]] = {"grids": 4, "bins": 3}
    advice: ClassVar[str] = "give fewer `grids` or `bins`"

    grids: int = at_least(1, default=32)
    bins: int = at_least(1, default=10)
    ridge: float = above(0, default=0.01)
    seed: int = 0

    def bank(self, num_classes: int, width: int) -> SoftGridHead:
        """A ridge head on sparse codes."""
        return SoftGridHead(SoftGrid(width, self.grids, self.bins, self.seed), num_classes, self.ridge)

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """The Gram matrix, it with the ridge, and its factor; and what is multiplied by them."""
        size = self.grids * (self.bins + 1) ** 2
        return 8 * (3 * size**2 + 2 * size * num_classes + 2 * width * self.grids)
