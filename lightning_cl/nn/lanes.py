"""Lanes beside a frozen ViT: a class token and a few tokens that sum up the image, for each task (MULTI-LANE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.adapters.frozen import FrozenBackbone, freeze_backbone
from lightning_cl.nn.extension import extend
from lightning_cl.nn.prefix_attention import Prefix, check_block, embedded, prefix_attention

if TYPE_CHECKING:
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import VisionTransformer as _Base
else:
    _Base = nn.Module


class Lanes(nn.Module):
    """Selectors and key and value prompts of every task, in stacked parameters (MULTI-LANE, arXiv:2405.15633).

    Args:
        tasks: ``T``.
        width: Of the ViT, ``D``.
        selectors: Tokens of a lane beside its class token, ``S``.
        prompts: Key and value rows in a block, ``P``.
        blocks: First blocks that get them.

    """

    growing = ("selectors", "prompts")

    def __init__(self, tasks: int, width: int, selectors: int, prompts: int, blocks: int) -> None:
        super().__init__()
        rows = torch.empty(tasks, selectors, width)
        self.selectors = nn.Parameter(nn.init.orthogonal_(rows) if selectors else rows)
        pairs = torch.empty(blocks, 2, tasks, prompts, width)
        for pair in pairs if pairs.numel() else ():
            nn.init.orthogonal_(pair)
        self.prompts = nn.Parameter(pairs.movedim(2, 0).contiguous())  # (T, blocks, 2, P, D)
        self.select(0, 1)

    def select(self, trained: int, known: int) -> None:
        """Let one lane run while training, and the first ``known`` when evaluated."""
        self._trained, self._known = (trained,), tuple(range(known))

    @property
    def active(self) -> tuple[int, ...]:
        """Tasks whose lanes run in the present mode."""
        return self._trained if self.training else self._known

    def tokens(self, task: int, class_token: Tensor, count: int) -> Tensor:
        """``(count, 1 + S, D)`` a lane before the first block; ``(1, 1, D)`` class token without position."""
        lane = torch.cat([class_token, self.selectors[task, None].to(class_token.dtype)], dim=1)
        return lane.expand(count, -1, -1)

    def prefix(self, task: int, block: int) -> Prefix | None:
        """``(1, P, D)`` key and value rows of a block; ``None``: it gets none."""
        if block >= self.prompts.shape[1]:
            return None
        key, value = self.prompts[task, block]
        return Prefix(key[None], value[None])

    @torch.no_grad()
    def copy_task(self, source: int, target: int) -> None:
        """Let a lane begin where another one ended."""
        for parameter in self.parameters():
            parameter[target] = parameter[source]


def lane_block(block: Any, image: Tensor, lane: Tensor, prefix: Prefix | None) -> Tensor:
    """One block of a lane: its tokens attend to sums of the image, and only the class token keeps what came of it.

    Args:
        block: Of timm, frozen.
        image: ``(B, N, D)`` the image's tokens behind the block's first norm.
        lane: ``(B, 1 + S, D)``.
        prefix: Key and value rows.

    Returns:
        ``(B, 1 + S, D)``.
    """
    own = block.norm1(lane)
    selectors = own[:, 1:]
    shares = (selectors @ image.mT / image.shape[-1] ** 0.5).softmax(dim=-1)
    attended = prefix_attention(
        cast("Attention", block.attn), torch.cat([own[:, :1], shares @ image], dim=1), prefix, rows=1
    )
    lane = lane + torch.cat([block.ls1(attended), selectors], dim=1)
    return lane + cast(Tensor, block.ls2(block.mlp(block.norm2(lane))))


class LanedViT(FrozenBackbone, _Base):
    """Mixin for a live timm ``VisionTransformer``; :func:`install_lanes` sets it up."""

    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``(T * B, 1, D)`` class tokens of unit length, lane after lane, of ``(B, C, H, W)`` images."""
        lanes: Lanes = self.__dict__["_lanes"]
        blocks: Any = self.blocks
        with torch.no_grad():
            image = embedded(self, x)
        assert self.cls_token is not None
        running = [lanes.tokens(task, self.cls_token, image.shape[0]) for task in lanes.active]
        for index, block in enumerate(blocks):
            with torch.no_grad():
                normed = block.norm1(image)
            pairs = zip(lanes.active, running, strict=True)
            running = [lane_block(block, normed, lane, lanes.prefix(task, index)) for task, lane in pairs]
            if index < len(blocks) - 1:
                with torch.no_grad():
                    image = block(image)
        return torch.cat([F.normalize(self.norm(lane[:, :1]), dim=-1) for lane in running])


def install_lanes(vit: Any, lanes: Lanes) -> None:
    """Freeze ``vit`` (all but its head) and let it answer with lanes from here on.

    Raises:
        ValueError: If it has no class token that it classifies, or a block is of another kind.
    """
    if vit.cls_token is None or vit.global_pool != "token":
        raise ValueError(
            f"lanes end in the class token, but this ViT classifies {vit.global_pool or 'all of its tokens'!r}; use a "
            'ViT with a class token and `global_pool="token"`.'
        )
    for index, block in enumerate(vit.blocks):
        check_block(block, index)
    extend(vit, LanedViT)
    vit.__dict__["_lanes"] = lanes
    freeze_backbone(vit)
