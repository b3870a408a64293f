"""Adapters alone: a bottleneck beside each MLP of a frozen network is trained, with nothing against forgetting."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import nn

from lightning_cl.callbacks.adapters.linear_layers import AddedParts, added_adapters
from lightning_cl.callbacks.arguments import at_least, fraction, pattern
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn import adapters as blocks
from lightning_cl.nn.adapters import Bank, block_mlps, split_mlps
from lightning_cl.nn.adapters.sites import widths


@dataclass(eq=False)
class Adapter(ContinualMethod):
    r"""Parallel adapters (He et al., ICLR 2022, arXiv:2110.04366), without a continual method.

    Every chosen part ``f`` of a block answers ``f(x) + scale * (U relu(D x + d) + u)``, with ``D`` to ``rank``
    channels; ``U``, ``d`` and ``u`` start at zero, so that the first answers are the plain network's bit for bit. They
    and the head are trained through the whole stream; all else is frozen and in evaluation mode. A reference of
    parameter-efficient tuning, and a small trunk for methods that come behind it in the list of callbacks. AdaptFormer,
    which ``APER`` uses, reads in front of the MLP's norm instead. Needs neither task boundaries nor a memory. Works on
    any network with MLPs in numbered blocks: ViT, Eva, Swin and ConvNeXt of timm, open_clip, torchvision, Hugging
    Face, where BERT and its like have the MLP in two parts and what is added comes behind their norm; where none is
    found, name parts with ``at``.

    Args:
        rank: Hidden channels, at least 1.
        scale: Of what is added, at least 0.
        dropout: Behind the ReLU, in [0, 1].
        at: Regular expression of the ends of names of parts that read and make the same number of channels, such as
            ``r"blocks\.\d+\.mlp"``; ``None``: every MLP within numbered blocks.

    Raises:
        ValueError: If a number is out of its range or ``at`` no regular expression; when attached, if no part has such
            a name, or one that has makes another number of channels than it reads.
    """

    state_key: ClassVar[str] = "lightning_cl.Adapter"
    needs_forward: ClassVar[bool] = False
    adapts_backbone: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {"rank": 4, "dropout": 0.0}

    rank: int = at_least(1, default=64)
    scale: float = at_least(0, default=0.1)
    dropout: float = fraction(default=0.1)
    at: str | None = pattern(default=None)
    _: KW_ONLY
    train_mask: TrainMask = "task"

    def build(self, pl_module: Any, info: Any) -> AddedParts:
        """An adapter beside every chosen part; or beside two that are an MLP together, if there is no other MLP."""
        usual, read = block_mlps(pl_module), None
        if self.at is None and not usual:
            usual, read = split_mlps(pl_module), "intermediate"

        def make(part: nn.Module) -> Bank:
            found = widths(part)
            if found is not None and read is not None:
                found = (found[1], found[1])
            if found is None or found[0] != found[1]:
                shape = "no linear layer" if found is None else f"{found[0]} channels in and {found[1]} out"
                raise ValueError(
                    f"`at={self.at!r}` names a {type(part).__name__} with {shape}; an adapter needs as many out as in: "
                    "name the MLPs of the blocks."
                )
            return blocks.Adapter(1, found[0], self.rank, self.scale, self.dropout)

        return AddedParts(added_adapters(pl_module, make, self.at, usual, "parallel", read))
