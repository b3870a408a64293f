"""Any network of a known family that asks a prompt provider: frozen, one pass for the query and one with prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_cl.nn.adapters.frozen import FrozenBackbone, freeze_backbone
from lightning_cl.nn.attention.family import AttentionFamily
from lightning_cl.nn.attention.prompt_pass import PromptedBlock, PromptPass
from lightning_cl.nn.eager import exporting
from lightning_cl.nn.extension import extend
from lightning_cl.nn.feature_cache import FeatureCache
from lightning_cl.nn.prompts import PromptProvider, Prompts

Run = Callable[..., Any]


class _Reached(Exception):
    """The value for which a pass was made is there; what would follow is not computed."""


class PromptedNetwork(FrozenBackbone):
    """Mixin for a live network whose ``forward`` goes through its blocks; :func:`install` sets it up."""

    def prompt_state(self) -> tuple[PromptProvider, FeatureCache]:
        """The provider (which lives elsewhere in the module tree) and the cache of evaluation queries."""
        return self.__dict__["_prompt_state"]  # type: ignore[no-any-return]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the network's answer with prompts."""
        return _prompted(self, super().forward, args, kwargs)


class PromptedFeatures(FrozenBackbone):
    """The same for a network with a ``forward_features``, which ``forward`` calls, and perhaps the user."""

    prompt_state = PromptedNetwork.prompt_state

    def forward_features(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the network's tokens with prompts; those of the prompts are left out."""
        run = super().forward_features  # type: ignore[misc]
        return _prompted(self, run, args, kwargs)


def install(network: Any, provider: PromptProvider, family: AttentionFamily, head: nn.Module) -> None:
    """Freeze ``network``, all but what holds the head, and connect its blocks to ``provider``.

    Args:
        network: Of this family.
        provider: See :class:`~lightning_cl.nn.PromptProvider`.
        family: What the network is made of.
        head: The layer that makes the class logits, in the network or behind it.
    """
    blocks, norm = family.blocks(network), family.norm(network)
    current = PromptPass(family, len(blocks), norm is not None)
    parts = tuple(family.trained_parts(network, head))
    extend(network, PromptedNetwork if family.entry(network) == "forward" else PromptedFeatures)
    network.__dict__["_prompt_state"] = provider, FeatureCache()
    for index, block in enumerate(blocks):
        extend(block, PromptedBlock)
        block.__dict__["_prompted_block"] = (current, index)
    if norm is not None:
        norm.register_forward_hook(current.after_norm)
    network.register_load_state_dict_post_hook(_forget_queries)
    freeze_backbone(network, parts)
    learning = {id(p) for p in network.parameters() if p.requires_grad} - {id(p) for p in head.parameters()}
    # A query through layers that learn would not stay what keys were trained on.
    source = None if learning and family.entry(network) == "forward" else head
    network.__dict__["_prompt_pass"] = current, source


def _prompted(network: Any, run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
    provider, cache = network.prompt_state()
    current, _ = network.__dict__["_prompt_pass"]
    query = None
    if provider.needs_query:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim]
        ask = partial(_query, network, provider.query_layer, run, args, kwargs)
        # Of several inputs none alone tells which they were.
        query = ask() if len(tensors) != 1 else provider.query(ask, tensors[0], cache)
    prompts: Prompts = provider(query)
    if prompts.loss is not None and provider.training:
        provider.pending_losses.append(prompts.loss)
    with current.with_prompts(prompts, network):
        return run(*args, **kwargs)


@torch.no_grad()
def _query(
    network: Any, layer: int | None, run: Run, args: Any, kwargs: dict[str, Any], rows: Tensor | None = None
) -> Tensor:
    """Compute the ``(B, D)`` feature of the plain network, of some rows only, or what a block says of the image."""
    current, head = network.__dict__["_prompt_pass"]
    early = layer is not None or head is None
    family: AttentionFamily = current.family
    tokens: list[Tensor] = []
    given: list[Any] = []
    args, kwargs = _rows_of((args, {k: v for k, v in kwargs.items() if k != "labels"}), rows)  # a loss is not needed
    source = family.blocks(network)[-1 if layer is None else layer]
    source = family.norm(network) or source if layer is None else source
    hooks = [source.register_forward_hook(partial(_note, tokens, early))]
    if not early:
        hooks.append(head.register_forward_pre_hook(partial(_note_input, given), prepend=True))
    with current.with_prompts(None, network), _evaluating(network), _removing(hooks), unanswered(network):
        try:
            value = run(*args, **kwargs)
        except _Reached:
            value = None
        value = given[0] if given else value
        found = None if early else family.feature(network, value, _named(run, args, kwargs))
        query: Tensor = family.summary(network, tokens[-1]) if found is None else found
        return query


def _rows_of(given: Any, rows: Tensor | None) -> Any:
    """Take some rows of all tensors in what a network is called with."""
    if rows is None:
        return given
    return apply_to_collection(given, Tensor, lambda value: value[rows.to(value.device)] if value.ndim else value)


def _named(run: Run, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Name what the network was called with."""
    return {**dict(zip(signature(run).parameters, args, strict=False)), **kwargs}


def _note(tokens: list[Tensor], stop: bool, block: nn.Module, args: Any, output: Any) -> None:
    tokens.append(output if isinstance(output, Tensor) else output[0])
    if stop and not exporting():
        raise _Reached


def _note_input(given: list[Any], head: nn.Module, args: Any) -> None:
    given.append(args[0])
    if not exporting():  # a graph follows every module to its end
        raise _Reached


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Leave out the dropout before the head, which stays in the mode of its module otherwise."""
    training = [part for part in network.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def unanswered(network: nn.Module) -> Iterator[None]:
    """Keep methods from answering after a head in the network: the pass is a look at features."""
    parts = list(network.modules()) if exporting() else []
    for part in parts:
        part.__dict__["_unanswered"] = True
    try:
        yield
    finally:
        for part in parts:
            del part.__dict__["_unanswered"]


@contextmanager
def _removing(hooks: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _forget_queries(network: Any, keys: Any) -> None:
    for cache in filter(None, (network.prompt_state()[1], network.prompt_state()[0].training_queries)):
        cache.clear()  # other weights, other queries
