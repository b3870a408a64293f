"""LoRA alone: low-rank updates of a frozen network are trained, with nothing against forgetting."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

from lightning_cl.callbacks.adapters.linear_layers import AddedParts, linear_adapters
from lightning_cl.callbacks.arguments import above, at_least, pattern
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn import adapters as blocks


@dataclass(eq=False)
class LoRA(ContinualMethod):
    r"""Low-rank adaptation (LoRA; Hu et al., ICLR 2022, arXiv:2106.09685), without a continual method.

    Every chosen linear layer answers ``W x + alpha / rank * B A x``: ``A`` (``rank`` rows, uniform as a linear layer's)
    and ``B`` (zero, so that the first answers are the plain network's bit for bit) are trained through the whole
    stream, and the head; all else is frozen and in evaluation mode. A reference of parameter-efficient tuning, and a
    small trunk for methods that come behind it in the list of callbacks (``SLCA``, ``EWC``, ``LwF``). Needs neither
    task boundaries nor a memory; costs two thin products for each layer in a step. Works on any network with
    ``nn.Linear`` in numbered blocks: ViT, Eva, Swin and ConvNeXt of timm, Hugging Face, the MLPs of open_clip and
    torchvision, whose attention does not call its layers.

    Args:
        rank: ``r``, at least 1.
        alpha: What is added is scaled by ``alpha / rank``; above 0. Twice the rank is usual.
        at: Regular expression of the ends of layers' names, such as ``r"attn\.qkv"`` or ``r"(query|value)"``;
            ``None``: every ``nn.Linear`` within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no layer has
            such a name, or one that has is no ``nn.Linear``.
    """

    state_key: ClassVar[str] = "lightning_cl.LoRA"
    needs_forward: ClassVar[bool] = False
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 2, "alpha": 4.0}

    rank: int = at_least(1, default=8)
    alpha: float = above(0, default=16.0)
    at: str | None = pattern(default=None)
    _: KW_ONLY
    train_mask: TrainMask = "task"

    def build(self, pl_module: Any, info: Any) -> AddedParts:
        """``A`` and ``B`` for every chosen layer."""
        make = partial(blocks.LoRA, 1, rank=self.rank, scale=self.alpha / self.rank)
        return AddedParts(linear_adapters(pl_module, make, self.at, "LoRA"))
