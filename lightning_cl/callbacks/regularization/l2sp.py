"""L2-SP: all weights are pulled back alike, to where the last task left them or to where training started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from lightning_cl.callbacks.arguments import choice
from lightning_cl.callbacks.regularization.anchor import QuadraticAnchor
from lightning_cl.callbacks.regularized import RegularizedMethod
from lightning_cl.nn.weights import trained
from lightning_cl.training import TaskData

StartingPoint = Literal["last", "start", "both"]


class EvenPenalty(QuadraticAnchor):
    """The importance 1, but 0 for the head where it has learned nothing yet."""

    def __init__(self, module: Any, strength: float, starting_point: StartingPoint) -> None:
        path = module.continual.head_path
        inside = {name: p for name, p in trained(module).items() if path and name.startswith(f"{path}.")}
        super().__init__(module, strength, inside)
        self.starting_point = starting_point

    @torch.no_grad()
    def start_task(self, module: Any, task: Any) -> None:
        """Before the first task: anchor the weights with which training starts, the head apart."""
        if self.starting_point != "last" and not self.anchor.taken:
            self.anchor.take(trained(module))

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """Move the anchor to the present weights; rows of classes that were learned belong to them from now on."""
        if self.starting_point != "start":
            rows = module.continual.mask.eval_allowed
            for _, kept in self.importance.items():
                if len(rows) == len(kept):
                    kept[rows] = 1.0
            super().end_task(module, data)


@dataclass(eq=False)
class L2SP(RegularizedMethod):
    """The L2 penalty towards a starting point (L2-SP; Li et al., ICML 2018, arXiv:1802.01483).

    Adds ``strength / 2 * sum_k (w_k - a_k)^2`` to the loss, as its gradient: EWC with the Fisher matrix 1, the lower
    reference of every importance. ``a`` are the weights at the end of the last task, or those before the first. Rows of
    the head whose classes have not been learned are not pulled. Works on any module, with a head or without; keeps one
    copy of the trained weights and no sample, and makes no pass.

    Args:
        strength: At least 0; with 0 it is plain fine-tuning. The default is of our own.
        starting_point: ``"last"``: the end of the last task, which must be told; ``"start"``: the weights before the
            first task, as in the paper, where they are pretrained; the head is never pulled, and no boundary needed;
            ``"both"``: those before the first task in it, and then the end of the last task (arXiv:2203.17269).

    Raises:
        ValueError: If a number is out of its range or a choice unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.L2SP"
    needs_forward: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False

    strength: float = 0.1
    starting_point: StartingPoint = choice(StartingPoint, default="last")

    def build(self, pl_module: Any, info: Any) -> EvenPenalty:
        """Anchor and importance of the weights that are trained when the method is attached."""
        return EvenPenalty(pl_module, self.strength, self.starting_point)
