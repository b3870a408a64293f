"""A timm ViT that asks a prompt provider: frozen, in eval mode, one embedding, one query pass without gradient."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_cl.nn.adapters.frozen import FrozenBackbone, freeze_backbone
from lightning_cl.nn.feature_cache import FeatureCache
from lightning_cl.nn.prefix_attention import Prefix, as_prefix, check_block, embedded, join_prefixes, run_block
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
        first = self.__dict__["_first_prompted"]
        with torch.no_grad():  # frozen, and shared by the query and the prompted pass
            x = embedded(self, images)
            x = blocks[:first](x)
            if not provider.needs_query:
                query = None
            else:
                ask, plain = partial(self._query, x, first), provider.training and provider.training_queries is None
                query = ask() if plain else provider.query(ask, images, cache)
        prompts: Prompts = provider(query)
        if prompts.loss is not None and provider.training:
            provider.pending_losses.append(prompts.loss)
        extra = 0 if prompts.tokens is None else prompts.tokens.shape[1]
        if prompts.tokens is not None:
            x = torch.cat([prompts.tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        last, class_token_only = len(blocks) - 1, class_token_only and _join_anything(prompts)
        read = extra if prompts.pool_tokens and not hasattr(self, "head_dist") else extra + self.num_prefix_tokens
        for index in range(first, last + 1):
            prefix, rows = _rows_of(prompts, index, blocks[index]), read if class_token_only and index == last else None
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(run_block, blocks[index], x, prefix, rows, use_reentrant=False)
            else:
                x = run_block(blocks[index], x, prefix, rows)
        alone = self.global_pool in ("token", "") and not hasattr(self, "head_dist") and self.has_class_token
        return _without_extra(self.norm(x), extra, prompts.pool_tokens, alone)

    def _query(self, x: Tensor, first: int, rows: Tensor | None = None) -> Tensor:
        """``(B, D)`` feature of the un-prompted network, continuing after block ``first - 1``; of some rows only.

        It is what the head would classify, without the head's dropout; the class token where nothing is pooled, and
        the mean of both where two tokens are classified. Or, if the provider names a layer, the class token after that
        block. The mean of the patches takes the place of a class token that is missing.
        """
        blocks: Any = self.blocks
        layer = self.prompt_state()[0].query_layer
        if layer is not None:
            layer %= len(blocks)
            x = blocks[first:layer](x if rows is None else x[rows.to(x.device)])
            if self.has_class_token:
                return run_block(blocks[layer], x, rows=1)[:, 0]
            return run_block(blocks[layer], x)[:, self.num_prefix_tokens :].mean(dim=1)
        pool = self.global_pool or ("token" if self.has_class_token else "avg")
        x = blocks[first:-1](x if rows is None else x[rows.to(x.device)])
        x = run_block(blocks[-1], x, rows=self.num_prefix_tokens if pool == "token" else None)
        x = self.norm(x)
        feature: Tensor = self.fc_norm(x[:, :2].mean(dim=1) if hasattr(self, "head_dist") else self.pool(x, pool))
        return feature


def _join_anything(prompts: Prompts) -> bool:
    """Whether rows or tokens join at all; without any, every bit is that of the plain ViT."""
    prefixes = [prefix.key for prefix in prompts.prefixes.values()]
    joining = [*prefixes, *prompts.appended.values(), *([] if prompts.tokens is None else [prompts.tokens])]
    return any(rows.shape[1] for rows in joining)


def _rows_of(prompts: Prompts, index: int, block: Any) -> Prefix | None:
    """Key and value rows that block ``index`` gets beside its own."""
    prefix, appended = prompts.prefixes.get(index), prompts.appended.get(index)
    return prefix if appended is None else join_prefixes(prefix, as_prefix(block, appended))


def _without_extra(x: Tensor, extra: int, pool_tokens: bool, alone: bool) -> Tensor:
    """Tokens as the head expects them: the prompts left out, or their mean in the place of what the head reads.

    Args:
        x: ``(B, T + N, D)``, prompts first, or fewer tokens where only these are read.
        extra: Number of prompts, ``T``.
        pool_tokens: Whether the head reads their mean.
        alone: Whether it reads the class token alone; else every token becomes the mean, whatever is pooled.
    """
    if not pool_tokens:
        return x[:, extra:]
    mean = x[:, :extra].mean(dim=1, keepdim=True)
    return torch.cat([mean, x[:, extra + 1 :]], dim=1) if alone else mean.expand(-1, x.shape[1] - extra, -1)


def _refuse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    values = {**{f"a positional argument {i}": value for i, value in enumerate(args, 2)}, **kwargs}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if given:
        raise ValueError(f"a prompted ViT does not take {', '.join(given)}; call it with images alone.")


def check_vit(vit: Any, provider: PromptProvider) -> None:
    """Refuse a ViT that the provider's prompts do not fit; it is left as it is.

    Raises:
        ValueError: If a layer index is beyond the depth (that of the query, too), or a block is of another kind.
    """
    depth = len(vit.blocks)
    provider.check_layers(depth)
    for index in range(provider.first_layer(depth), depth):
        check_block(vit.blocks[index], index)


def install_prompts(vit: Any, provider: PromptProvider) -> None:
    """Freeze ``vit`` (all but its head) and connect it to ``provider``; its class must be extended already.

    Raises:
        ValueError: See :func:`check_vit`.
    """
    check_vit(vit, provider)
    vit.__dict__["_prompt_state"] = (provider, FeatureCache())
    vit.__dict__["_first_prompted"] = provider.first_layer(len(vit.blocks))
    vit.register_load_state_dict_post_hook(_forget_queries)
    freeze_backbone(vit)


def _forget_queries(vit: Any, keys: Any) -> None:
    for cache in filter(None, (vit.prompt_state()[1], vit.prompt_state()[0].training_queries)):
        cache.clear()  # other weights, other queries
