"""CODA-Prompt, DualPrompt and L2P as their published loops make them: two passes of the whole ViT, plain PyTorch.

Typed anew from the formulas. As in the released code of CODA-Prompt (which has DualPrompt, too) and of L2P the ViT is
only left out of the optimiser, so a step computes the gradients of all its weights; with ``frozen=True`` it does not.
Attention is torch's fused one, which the released code did not have.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = (0, 1, 2, 3, 4)


class CODA(nn.Module):
    """Components weighed by the cosine of a query, attended per component, with a key; in every layer its own."""

    def __init__(self, width: int, tasks: int, size: int = 100, length: int = 8) -> None:
        super().__init__()
        self.per_task = size // tasks
        self.components = nn.ParameterList(nn.Parameter(torch.randn(size, length, width)) for _ in LAYERS)
        self.keys = nn.ParameterList(nn.Parameter(torch.randn(size, width)) for _ in LAYERS)
        self.attention = nn.ParameterList(nn.Parameter(torch.randn(size, width)) for _ in LAYERS)

    def forward(self, layer: int, query: Tensor, task: int, train: bool) -> tuple[Tensor, Tensor, Any]:
        start, end = task * self.per_task, (task + 1) * self.per_task
        rows = [part[layer] for part in (self.components, self.keys, self.attention)]
        if train and start:
            rows = [torch.cat([part[:start].detach(), part[start:end]]) for part in rows]
        else:
            rows = [part[:end] for part in rows]
        attended = torch.einsum("bd,kd->bkd", query, rows[2])
        weights = torch.einsum("bkd,kd->bk", F.normalize(attended, dim=2), F.normalize(rows[1], dim=1))
        prompt = torch.einsum("bk,kld->bld", weights, rows[0])
        half = prompt.shape[1] // 2
        return prompt[:, :half], prompt[:, half:], 0.0


class Dual(nn.Module):
    """A general prefix in two layers, an expert per task in three, each with keys of its own."""

    def __init__(self, width: int, tasks: int, general: int = 5, expert: int = 20) -> None:
        super().__init__()
        self.general = nn.ParameterList(nn.Parameter(torch.rand(2 * general, width)) for _ in range(2))
        self.expert = nn.ParameterList(nn.Parameter(torch.rand(tasks, 2 * expert, width)) for _ in range(3))
        self.keys = nn.ParameterList(nn.Parameter(torch.rand(tasks, width)) for _ in range(3))

    def forward(self, layer: int, query: Tensor, task: int, train: bool) -> tuple[Tensor, Tensor, Any]:
        loss: Any = 0.0
        if layer < 2:
            prompt = self.general[layer].expand(len(query), -1, -1)
        else:
            cosine = F.normalize(query, dim=1) @ F.normalize(self.keys[layer - 2], dim=1).T
            if train:
                loss = (1 - cosine[:, task]).sum()
                prompt = self.expert[layer - 2][task].expand(len(query), -1, -1)
            else:
                prompt = self.expert[layer - 2][cosine.argmax(dim=1)]
        half = prompt.shape[1] // 2
        return prompt[:, :half], prompt[:, half:], loss


class Prefixed(nn.Module):
    """A ViT whose first five blocks get prefixes, chosen by the class token of a pass without them."""

    def __init__(self, vit: Any, prompts: nn.Module, frozen: bool = False) -> None:
        super().__init__()
        self.vit, self.prompts = vit, prompts
        for name, parameter in vit.named_parameters():
            parameter.requires_grad_(not frozen or name.startswith("head."))

    def trained(self) -> list[nn.Parameter]:
        return [*self.prompts.parameters(), *self.vit.head.parameters()]

    def forward(self, images: Tensor, task: int) -> tuple[Tensor, Any]:
        vit, loss = self.vit, 0.0
        with torch.no_grad():
            query = vit.forward_features(images)[:, 0]
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for index, block in enumerate(vit.blocks):
            prefix = None
            if index in LAYERS:
                *prefix, term = self.prompts(index, query, task, self.training)
                loss = loss + term
            x = x + attend(block.attn, block.norm1(x), prefix)
            x = x + block.mlp(block.norm2(x))
        return vit.head(vit.norm(x)[:, 0]), loss


def attend(attention: Any, x: Tensor, prefix: Any) -> Tensor:
    """Self-attention with rows in front of keys and values."""
    heads, (batch, count, width) = attention.num_heads, x.shape
    query, key, value = attention.qkv(x).reshape(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
    if prefix is not None:
        more = [rows.reshape(batch, -1, heads, width // heads).transpose(1, 2) for rows in prefix]
        key, value = torch.cat([more[0], key], dim=2), torch.cat([more[1], value], dim=2)
    out = F.scaled_dot_product_attention(query, key, value)
    return attention.proj(out.transpose(1, 2).reshape(batch, count, width))


class L2PTokens(nn.Module):
    """Tokens of the nearest keys in front of the patches; the queries come from a second copy of the ViT."""

    def __init__(self, vit: Any, size: int = 10, length: int = 5, top_k: int = 5, frozen: bool = False) -> None:
        super().__init__()
        self.vit, self.asked, self.top_k = vit, copy.deepcopy(vit).eval(), top_k
        self.asked.requires_grad_(False)
        for name, parameter in vit.named_parameters():
            parameter.requires_grad_(not frozen or name.startswith("head."))
        self.prompt = nn.Parameter(torch.empty(size, length, vit.embed_dim).uniform_(-1, 1))
        self.keys = nn.Parameter(torch.empty(size, vit.embed_dim).uniform_(-1, 1))

    def trained(self) -> list[nn.Parameter]:
        return [self.prompt, self.keys, *self.vit.head.parameters()]

    def forward(self, images: Tensor, task: int) -> tuple[Tensor, Any]:
        vit, batch = self.vit, len(images)
        with torch.no_grad():
            query = self.asked.forward_features(images)[:, 0]
        cosine = F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).T
        chosen = cosine.topk(self.top_k, dim=1).indices
        tokens = self.prompt[chosen].flatten(1, 2) + vit.pos_embed[:, :1]
        x = torch.cat([tokens, vit._pos_embed(vit.patch_embed(images))], dim=1)
        x = vit.norm(vit.blocks(vit.norm_pre(x)))
        pull = -cosine.gather(1, chosen).sum() / batch
        return vit.head(x[:, : tokens.shape[1]].mean(dim=1)), pull


def training_step(model: Any, batch: tuple[Tensor, Tensor], task: int, per_task: int) -> Callable[[], None]:
    """A step of Adam on cross-entropy among the task's classes; the others' logits are -inf."""
    model.train()
    optimizer = torch.optim.Adam(model.trained(), lr=1e-3)

    def step() -> None:
        logits, term = model(batch[0], task)
        logits = logits[:, : (task + 1) * per_task].clone()
        logits[:, : task * per_task] = -torch.inf
        optimizer.zero_grad()
        (F.cross_entropy(logits, batch[1]) + term).backward()
        optimizer.step()

    return step


def evaluation(model: Any, images: Tensor, task: int) -> Callable[[], None]:
    """Both passes over a batch."""
    model.eval()

    @torch.no_grad()
    def step() -> None:
        model(images, task)

    return step
