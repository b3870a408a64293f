"""LiNeS: what a task changed is scaled by depth when it ends, so that shallow layers keep what they knew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightning_cl.callbacks.arguments import choice, fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.layer_depth import block_list, depths
from lightning_cl.nn.weights import Snapshot, interpolate, overwrite, trained
from lightning_cl.training import MethodModule, TaskData
from lightning_cl.training.trained_body import trained_body

Reference = Literal["previous", "pretrained"]


class DepthScaling(MethodModule):
    """The reference, and the factor of every weight's way from it."""

    def __init__(self, module: Any, alpha: float, beta: float, reference: Reference, blocks: str | None) -> None:
        super().__init__()
        self.each_task = reference == "previous"
        weights = trained_body(module)
        place = depths(module, list(weights), block_list(module) if blocks is None else blocks)
        factors = {name: alpha if depth is None else alpha + beta * depth for name, depth in place.items()}
        self.factors = {name: factor for name, factor in factors.items() if factor != 1}
        self.reference = Snapshot({name: weights[name] for name in self.factors})

    def start_task(self, module: Any, task: Any) -> None:
        """Take the reference."""
        if self.each_task or not self.reference.taken:
            self.reference.take(trained(module))

    def end_task(self, module: Any, data: TaskData) -> None:
        """``w <- w_reference + factor * (w - w_reference)``."""
        weights = trained(module)
        known = {name: weights[name] for name in self.factors}
        overwrite(known, interpolate(dict(self.reference.items()), known, self.factors).items())


@dataclass(eq=False)
class LiNeS(TaskwiseMethod):
    """Layer scaling after training (LiNeS; Wang et al., ICLR 2025, arXiv:2410.17146).

    At every task's end ``w <- w_0 + (alpha + beta * (l - 1) / (L - 1)) (w - w_0)`` for the weights of block ``l`` of
    ``L``; weights outside of the blocks (embeddings, the last norm) get ``alpha``, and the head is left alone, since
    its rows are new. Buffers (batch norm's statistics) are not scaled. The paper scales once, after fine-tuning a
    pre-trained model; doing so at each task's end is a use of ours. Works on any module and beside any method that
    fine-tunes; put it in front of methods that keep statistics of features at a task's end. Needs task boundaries,
    keeps a copy of the scaled weights, and costs no pass.

    Args:
        alpha: Factor of the first block, in [0, 1]; the default is of our own, the better of 0.2 and 0.5 on handwritten
            digits.
        beta: What the last block has more, in [0, 1]; ``1 - alpha`` when ``None``, as in the paper, so that the last
            block keeps all. ``alpha=1`` (with ``beta=0``) is plain fine-tuning, ``alpha=beta=0`` undoes every task.
        reference: ``w_0``: the weights at the ``"previous"`` task's end, or those with which the fit began, the
            ``"pretrained"`` ones.
        blocks: Dotted path of the list of blocks, e.g. ``"net.blocks"``; when ``None``, the ``nn.ModuleList`` or
            ``nn.Sequential`` that holds most of the network; without one, each layer is a block.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first: their moments are of
            the weights before the scaling.

    Raises:
        ValueError: If a number is out of its range, or both together above 1; when attached, if there is no such list.
    """

    state_key: ClassVar[str] = "lightning_cl.LiNeS"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    rewrites_weights: ClassVar[bool] = True
    constrains: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False

    alpha: float = fraction(default=0.2)
    beta: float | None = None
    reference: Reference = choice(Reference, default="previous")
    blocks: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta is not None and not 0 <= self.beta <= 1 - self.alpha:
            raise ValueError(
                f"`beta` is {self.beta}, but `alpha` is {self.alpha}; give a number in [0, {1 - self.alpha:g}], so "
                "that no way is made longer."
            )

    def build(self, pl_module: Any, info: Any) -> DepthScaling:
        """A copy of the weights that are scaled."""
        beta = 1 - self.alpha if self.beta is None else self.beta
        return DepthScaling(pl_module, self.alpha, beta, self.reference, self.blocks)
