"""HFT: in every task a random half of the network stays exactly as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_cl.callbacks.arguments import fraction
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.half_masks import embedding_names, frozen_share
from lightning_cl.nn.masks import ElementMask
from lightning_cl.nn.weights import trained
from lightning_cl.training import MethodModule
from lightning_cl.training.step_seed import generator_of
from lightning_cl.training.trained_body import trained_body


class FrozenHalf(MethodModule):
    """Masks of what stays in this task."""

    def __init__(self, module: Any, share: float) -> None:
        super().__init__()
        self.share = share
        self.frozen = ElementMask(trained_body(module))

    def start_task(self, module: Any, task: Any) -> None:
        """Draw again, the same on all processes."""
        generator = generator_of(module, 0x4F7, task.index)
        weights = {name: weight for name, weight in trained(module).items() if name in self.frozen.names}
        masks = frozen_share(weights, self.share, generator, embedding_names(module))
        for name, mask in self.frozen.items():
            mask.copy_(masks[name])

    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Frozen weights count neither in a norm of the gradient nor in an optimiser's moments."""
        if self.share:
            self.frozen.zero_gradients(trained(module))

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Whatever the optimiser does without a gradient."""
        weights = trained(module)
        for name, mask in self.frozen.items() if self.share else ():
            if bool(mask.any()):
                yield weights[name], mask


@dataclass(eq=False)
class HFT(TaskwiseMethod):
    """Half fine-tuning (HFT; Hui et al., ACL 2025, arXiv:2404.18466).

    In every task, also the first, a random share of each category of weights stays bit for bit as it is, under any
    optimiser; the rest is fine-tuned, and the next task draws again. In a transformer with the names of timm,
    open_clip or Hugging Face: two of the four matrices ``q, k, v, o`` of each attention, the first matrix of the MLP in
    one half of the blocks and the second (or the other two) in the other half, and so for the norms; embeddings, the
    last norm and the head are always trained. In any other network half of the layers but embeddings and the head. The
    paper has language models alone; this is its category level, carried over to vision. Made for networks that are
    pre-trained. Works on any module; needs task boundaries, keeps a mask and a copy of the frozen weights, and costs no
    pass.

    Args:
        share: Of each category that stays, in [0, 1]; with 0 it is plain fine-tuning.

    Raises:
        ValueError: If the share is out of its range.
    """

    state_key: ClassVar[str] = "lightning_cl.HFT"
    needs_forward: ClassVar[bool] = False
    boundaries: ClassVar[Boundaries] = "taken"
    constrains: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False

    share: float = fraction(default=0.5)

    def build(self, pl_module: Any, info: Any) -> FrozenHalf:
        """Masks of all trained weights but the head's."""
        return FrozenHalf(pl_module, self.share)
