"""A timm ViT that asks a prompt provider: frozen, in eval mode, one embedding, one query pass without gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.prefix_attention import check_block, run_block
from lightning_cl.nn.prompts import PromptProvider, Prompts
from lightning_cl.nn.feature_cache import FeatureCache

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer as _Base
else:
    _Base = nn.Module

#: Parts of a ViT that stay trainable and follow the module's training mode.
HEAD_PARTS = ("head", "head_drop", "head_dist")


class PromptedViT(_Base):
    """Mixin for a live timm ``VisionTransformer``; :func:`install_prompts` sets it up.

    ``forward`` computes the last block only for the class token, which is all that is read;
    ``forward_features`` gives all tokens, as before.
    """

    def prompt_state(self) -> tuple[PromptProvider, FeatureCache]:
        """The provider (which lives elsewhere in the module tree) and the cache of evaluation queries."""
        return self.__dict__["_prompt_state"]  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Any:
        """Only the head follows; the frozen network stays in eval mode."""
        super().train(mode)
        for name, child in self.named_children():
            if name not in HEAD_PARTS:
                child.train(False)
        return self

    def forward(self, x: Tensor, **unsupported: Any) -> Tensor:
        """As before, with prompts."""
        _refuse(unsupported)
        reads_class_token = self.global_pool == "token" and self.attn_pool is None
        logits: Tensor = self.forward_head(self._prompted(x, class_token_only=reads_class_token))
        return logits

    def forward_features(self, x: Tensor, **unsupported: Any) -> Tensor:
        """As before, with prompts; prompt tokens are left out of the sequence."""
        _refuse(unsupported)
        return self._prompted(x, class_token_only=False)

    def _prompted(self, images: Tensor, class_token_only: bool) -> Tensor:
        provider, cache = self.prompt_state()
        depth = len(self.blocks)
        first = 0 if provider.layers == () else min(provider.layers)
        with torch.no_grad():  # frozen, and shared by the query and the prompted pass
            x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(images))))
            for block in self.blocks[:first]:
                x = block(x)
            query = cache.get(lambda rows: self._query(x, first, rows), len(x)) if provider.needs_query else None
        prompts: Prompts = provider(query)
        if prompts.loss is not None and provider.training:
            provider.pending_losses.append(prompts.loss)
        extra = 0 if prompts.tokens is None else prompts.tokens.shape[1]
        if prompts.tokens is not None:
            x = torch.cat([prompts.tokens.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        rows = (extra if prompts.pool_tokens else extra + 1) if class_token_only else None
        for index in range(first, depth):
            kept = rows if index == depth - 1 else None
            prefix = prompts.prefixes.get(index)
            block = self.blocks[index]
            x = block(x) if prefix is None and kept is None else run_block(block, x, prefix, kept)
        return _without_extra(self.norm(x), extra, prompts.pool_tokens)

    def _query(self, x: Tensor, first: int, rows: Tensor | None = None) -> Tensor:
        """``(B, D)`` feature of the un-prompted network, continuing after block ``first - 1``; of some rows only."""
        x = x if rows is None else x[rows.to(x.device)]
        reads_class_token = self.global_pool == "token" and self.attn_pool is None
        for block in self.blocks[first:-1]:
            x = block(x)
        x = run_block(self.blocks[-1], x, rows=1 if reads_class_token else None)
        feature: Tensor = self.fc_norm(self.pool(self.norm(x)))
        return feature


def _without_extra(x: Tensor, extra: int, pool_tokens: bool) -> Tensor:
    """Tokens as the head expects them: the prompts' mean in the place of the class token, or the prompts left out."""
    if pool_tokens:
        return torch.cat([x[:, :extra].mean(dim=1, keepdim=True), x[:, extra + 1 :]], dim=1)
    return x[:, extra:]


def _refuse(arguments: dict[str, Any]) -> None:
    given = [name for name, value in arguments.items() if value is not None and value is not False]
    if given:
        raise ValueError(f"a prompted ViT does not take {', '.join(given)}; call it with images alone.")


def install_prompts(vit: Any, provider: PromptProvider) -> None:
    """Freeze ``vit`` (all but its head) and connect it to ``provider``; its class must be extended already.

    Raises:
        ValueError: If a layer index is beyond the depth, a block is of another kind, or there is no class token.
    """
    depth = len(vit.blocks)
    beyond = [layer for layer in provider.layers if not 0 <= layer < depth]
    if beyond:
        raise ValueError(f"prompt layers {beyond} do not exist: the ViT has {depth} blocks, 0 to {depth - 1}.")
    for index in {*provider.layers, depth - 1}:
        check_block(vit.blocks[index], index)
    if not vit.has_class_token:
        raise ValueError(
            "the ViT has no class token, which prompt methods read; use a model with one "
            "(for example `vit_tiny_patch16_224`)."
        )
    head = {id(p) for name in HEAD_PARTS for p in getattr(vit, name, nn.Identity()).parameters()}
    for parameter in vit.parameters():
        if id(parameter) not in head:
            parameter.requires_grad_(False)
    vit.__dict__["_prompt_state"] = (provider, FeatureCache())
    vit.train(vit.training)
