"""A timm ViT that asks a prompt provider: frozen, in eval mode, one embedding, one query pass without gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_cl.nn.adapters.frozen import FrozenBackbone, freeze_backbone
from lightning_cl.nn.feature_cache import FeatureCache
from lightning_cl.nn.prefix_attention import Prefix, as_prefix, check_block, join_prefixes, run_block
from lightning_cl.nn.prompts import PromptProvider, Prompts

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer as _Base
else:
    _Base = nn.Module


class PromptedViT(FrozenBackbone, _Base):
    """Mixin for a live timm ``VisionTransformer``; :func:`install_prompts` sets it up.

    ``forward`` computes the last block only for the class token, where that is all that is read;
    ``forward_features`` gives all tokens, as before.
    """

    def prompt_state(self) -> tuple[PromptProvider, FeatureCache]:
        """The provider (which lives elsewhere in the module tree) and the cache of evaluation queries."""
        return self.__dict__["_prompt_state"]  # type: ignore[no-any-return]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the logits of images with prompts."""
        _refuse(args, kwargs)
        return self.forward_head(self._prompted(x, class_token_only=self.global_pool == "token"))

    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the tokens of images with prompts; those of the prompts are left out of the sequence."""
        _refuse(args, kwargs)
        return self._prompted(x, class_token_only=False)

    def _prompted(self, images: Tensor, class_token_only: bool) -> Tensor:
        provider, cache = self.prompt_state()
        blocks: Any = self.blocks
        first = _first_layer(provider, len(blocks))
        with torch.no_grad():  # frozen, and shared by the query and the prompted pass
            x = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(images))))
            x = blocks[:first](x)
            if not provider.needs_query:
                query = None
            elif provider.training:  # only images of an evaluation come again
                query = self._query(x, first)
            else:
                query = cache.get(lambda rows: self._query(x, first, rows), images)
        prompts: Prompts = provider(query)
        if prompts.loss is not None and provider.training:
            provider.pending_losses.append(prompts.loss)
        extra = 0 if prompts.tokens is None else prompts.tokens.shape[1]
        if prompts.tokens is not None:
            x = torch.cat([prompts.tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        last = len(blocks) - 1
        read = extra if prompts.pool_tokens else extra + self.num_prefix_tokens
        for index in range(first, last + 1):
            prefix, rows = _rows_of(prompts, index, blocks[index]), read if class_token_only and index == last else None
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(run_block, blocks[index], x, prefix, rows, use_reentrant=False)
            else:
                x = run_block(blocks[index], x, prefix, rows)
        return _without_extra(self.norm(x), extra, prompts.pool_tokens)

    def _query(self, x: Tensor, first: int, rows: Tensor | None = None) -> Tensor:
        """``(B, D)`` feature of the un-prompted network, continuing after block ``first - 1``; of some rows only.

        It is what the head would classify, without the head's dropout; the class token where nothing is pooled. Or,
        if the provider names a layer, the class token after that block.
        """
        blocks: Any = self.blocks
        layer = self.prompt_state()[0].query_layer
        if layer is not None:
            layer %= len(blocks)
            x = blocks[first:layer](x if rows is None else x[rows.to(x.device)])
            return run_block(blocks[layer], x, rows=1)[:, 0]
        pool = self.global_pool or "token"
        x = blocks[first:-1](x if rows is None else x[rows.to(x.device)])
        x = run_block(blocks[-1], x, rows=self.num_prefix_tokens if pool == "token" else None)
        feature: Tensor = self.fc_norm(self.pool(self.norm(x), pool))
        return feature


def _first_layer(provider: PromptProvider, depth: int) -> int:
    """The first block that prompts enter, or from which on the query goes its own way."""
    layers = provider.layers if provider.query_layer is None else (*provider.layers, provider.query_layer % depth)
    return min(layers, default=0)


def _rows_of(prompts: Prompts, index: int, block: Any) -> Prefix | None:
    """Key and value rows that block ``index`` gets beside its own."""
    prefix, appended = prompts.prefixes.get(index), prompts.appended.get(index)
    return prefix if appended is None else join_prefixes(prefix, as_prefix(block, appended))


def _without_extra(x: Tensor, extra: int, pool_tokens: bool) -> Tensor:
    """Tokens as the head expects them: the prompts' mean in the place of the class token, or the prompts left out."""
    if pool_tokens:
        return torch.cat([x[:, :extra].mean(dim=1, keepdim=True), x[:, extra + 1 :]], dim=1)
    return x[:, extra:]


def _refuse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    values = {**{f"a positional argument {i}": value for i, value in enumerate(args, 2)}, **kwargs}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if given:
        raise ValueError(f"a prompted ViT does not take {', '.join(given)}; call it with images alone.")


def check_vit(vit: Any, provider: PromptProvider) -> None:
    """Refuse a ViT that the provider's prompts do not fit; it is left as it is.

    Raises:
        ValueError: If a layer index is beyond the depth (that of the query, too), a block is of another kind, there
            is no class token, or the head does not read the token in whose place the prompts' mean would be.
    """
    depth = len(vit.blocks)
    beyond = [layer for layer in provider.layers if not 0 <= layer < depth]
    if beyond:
        raise ValueError(
            f"prompt layers {beyond} do not exist: the ViT has {depth} blocks, 0 to {depth - 1}; choose layers among "
            "these."
        )
    if provider.query_layer is not None and not -depth <= provider.query_layer < depth:
        raise ValueError(
            f"the query is to be read after block {provider.query_layer}, but the ViT has {depth} block(s), 0 to "
            f"{depth - 1}; use a deeper ViT, or read the query elsewhere."
        )
    for index in range(_first_layer(provider, depth), depth):
        check_block(vit.blocks[index], index)
    if not vit.has_class_token:
        raise ValueError(
            "the ViT has no class token, which prompt methods read; use a model with one "
            "(for example `vit_tiny_patch16_224`)."
        )
    if provider.pool_tokens and vit.global_pool not in ("token", ""):
        raise ValueError(
            "the mean of the prompt tokens takes the place of the class token, but this ViT classifies its patches "
            f'(`global_pool={vit.global_pool!r}`); build it with `global_pool="token"`, or use prefixes '
            '(`form="prefix"`).'
        )


def install_prompts(vit: Any, provider: PromptProvider) -> None:
    """Freeze ``vit`` (all but its head) and connect it to ``provider``; its class must be extended already.

    Raises:
        ValueError: See :func:`check_vit`.
    """
    check_vit(vit, provider)
    vit.__dict__["_prompt_state"] = (provider, FeatureCache())
    vit.register_load_state_dict_post_hook(_forget_queries)
    freeze_backbone(vit)


def _forget_queries(vit: Any, keys: Any) -> None:
    vit.prompt_state()[1].clear()  # other weights, other queries
