"""One pass through a network block by block: prompts join before a block, and leave behind the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_cl.nn.attention.family import AttentionFamily
from lightning_cl.nn.attention.rows import ExtraRows
from lightning_cl.nn.prefix_attention import Prefix
from lightning_cl.nn.prompts import Prompts

Run = Callable[..., Any]


class PromptedBlock(nn.Module):
    """Mixin for a live block: while a pass with prompts goes through the network, it gets its share of them."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the block's answer, with its share of the prompts."""
        current, index = self.__dict__["_prompted_block"]
        run = super().forward
        return run(*args, **kwargs) if current.prompts is None else current.through(self, index, run, args, kwargs)


class PromptPass:
    """The prompts of the pass that goes through a network's blocks now.

    Args:
        family: Of the network.
        depth: Number of its blocks.
        norm: Whether the network has a norm behind the blocks, behind which tokens leave.

    Attributes:
        prompts: ``None``: a pass without prompts, or none at all.
    """

    def __init__(self, family: AttentionFamily, depth: int, norm: bool) -> None:
        self.family, self.depth, self.norm = family, depth, norm
        self.prompts: Prompts | None = None
        self.checkpointing = False

    @contextmanager
    def with_prompts(self, prompts: Prompts | None, network: nn.Module) -> Iterator[None]:
        """Give all blocks these prompts; activation checkpoints are ours, since prompts must be the same again."""
        owners = [part for part in network.modules() if getattr(part, "grad_checkpointing", False) is True]
        before, self.prompts, self.checkpointing = self.prompts, prompts, bool(owners)
        try:
            for owner in owners:
                owner.grad_checkpointing = False  # type: ignore[assignment]
            yield
        finally:
            self.prompts, self.checkpointing = before, False
            for owner in owners:
                owner.grad_checkpointing = True  # type: ignore[assignment]

    @property
    def extra(self) -> int:
        """Prompt tokens that stay in the sequence from block to block."""
        return 0 if self.prompts is None or self.prompts.tokens is None else self.prompts.tokens.shape[1]

    def through(self, block: nn.Module, index: int, run: Run, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute the answer of one block with its share of the prompts."""
        prompts = self.prompts
        assert prompts is not None
        name, (x, *rest) = (None, args) if args else next((n, [v]) for n, v in kwargs.items())
        if name is not None:
            kwargs = {key: value for key, value in kwargs.items() if key != name}
            run = _named(run, name)
        if index == 0 and prompts.tokens is not None:
            x = _join(prompts.tokens, x)
        step = partial(_run, self.family, block, index, run, self.extra, kwargs)
        given = (prompts.prefixes.get(index), prompts.appended.get(index), x, *rest)
        if self.checkpointing and torch.is_grad_enabled():
            output = checkpoint(step, *given, use_reentrant=False)
        else:
            output = step(*given)
        return output if self.norm or index < self.depth - 1 else _replace(output, self.leave(_first(output)))

    def leave(self, x: Tensor) -> Tensor:
        """Take the prompt tokens out of ``(B, T + N, D)``; or all others are their mean, which then is what is read."""
        extra = self.extra
        if not extra or self.prompts is None:
            return x
        if self.prompts.pool_tokens:
            return x[:, :extra].mean(dim=1, keepdim=True).expand(-1, x.shape[1] - extra, -1)
        return x[:, extra:]

    def after_norm(self, norm: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Take the prompts out behind the norm, as its forward hook."""
        return self.leave(output)


def _run(
    family: AttentionFamily,
    block: nn.Module,
    index: int,
    run: Run,
    extra: int,
    kwargs: dict[str, Any],
    prefix: Prefix | None,
    appended: Tensor | None,
    x: Tensor,
    *rest: Any,
) -> Any:
    """Run a block on ``[appended; tokens; x]``, and leave what was appended out of its answer."""
    count = 0 if appended is None else appended.shape[1]
    length = 0 if prefix is None else prefix.key.shape[1]
    if not count + extra + length:
        return run(x, *rest, **kwargs)
    kwargs = family.beside(kwargs, x.shape[1] - extra, count + extra)
    if count and appended is not None:
        x = _join(appended, x)
    rows = ExtraRows(prefix, count + extra)
    with family.joined(block, count + extra), rows:
        output = run(x, *rest, **kwargs)
    if length and not rows.used:
        raise ValueError(
            f"block {index}, a {type(block).__name__}, computes its attention without torch's "
            "`scaled_dot_product_attention` and `nn.MultiheadAttention`, so a prefix has no way in; build the network "
            'with fused attention (`attn_implementation="sdpa"`, `use_fsdpa=True`, or what the library calls it).'
        )
    return _replace(output, _first(output)[:, count:]) if count else output


def _join(tokens: Tensor, x: Tensor) -> Tensor:
    return torch.cat([tokens.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)


def _first(output: Any) -> Tensor:
    first: Tensor = output if isinstance(output, Tensor) else output[0]
    return first


def _replace(output: Any, first: Tensor) -> Any:
    return first if isinstance(output, Tensor) else (first, *output[1:])


def _named(run: Run, name: str) -> Run:
    return lambda x, **kwargs: run(**{name: x}, **kwargs)
