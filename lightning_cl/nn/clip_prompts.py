"""CPE-CLIP (arXiv:2303.04751): deep language prompts, and vision prompts that are a projection of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.nn.clip_towers import PromptMode, encode_images
from lightning_cl.nn.load_hooks import after_load


def gradient_shares(classes_per_task: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """``|C_t| / sum_{i <= t} |C_i|`` of each task: what CPE-CLIP multiplies its gradients with; 1 for the first.

    With 60 base classes and sessions of 5 it is 1, 5/65, 5/70, ...
    """
    total, shares = 0, []
    for held in classes_per_task:
        total += len(held)
        shares.append(len(held) / total)
    return tuple(shares)


class CLIPPrompts(nn.Module):
    """All that CPE-CLIP trains: one set of prompts for all classes and sessions, and one projection for all layers.

    Args:
        num_prompts: Prompt tokens in each layer, ``K``.
        depth: Layers with prompts, ``L``, from the first on.
        text_width: Width of the text tower, ``D_text``.
        vision_width: Width of the image tower, ``D_vision``; ``None``: no vision prompts.
        text_mode: How prompts of successive layers meet in the text tower, see :func:`renew_prompts`.
        vision_mode: The same for the image tower.
        shares: Factor of the loss in each task.
    """

    task_counter: Tensor

    def __init__(
        self,
        num_prompts: int,
        depth: int,
        text_width: int,
        vision_width: int | None,
        text_mode: PromptMode = "replace",
        vision_mode: PromptMode = "accumulate",
        shares: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.text_mode, self.vision_mode, self.shares = text_mode, vision_mode, tuple(shares)
        # On the 3-D tensor, as in the official code: fan_in = K * D_text, fan_out = L * D_text.
        self.language = nn.Parameter(nn.init.xavier_uniform_(torch.empty(depth, num_prompts, text_width)))
        self.projection = None if vision_width is None else nn.Linear(text_width, vision_width)
        self.register_buffer("task_counter", torch.tensor(-1))
        self.task = -1  # mirrors the counter, without a host sync
        after_load(self, "_read_task")

    def _read_task(self) -> None:
        self.task = int(self.task_counter)

    def start_task(self, task: int) -> None:
        """``task`` begins."""
        self.task = task
        self.task_counter.fill_(task)

    @property
    def share(self) -> float:
        """Factor of the loss in the current task."""
        return self.shares[min(max(self.task, 0), len(self.shares) - 1)]

    def vision(self) -> Tensor | None:
        """``(L, K, D_vision)`` vision prompts, the same for all images."""
        return None if self.projection is None else self.projection(self.language)

    def extra_repr(self) -> str:
        """Sizes and options."""
        depth, count, width = self.language.shape
        return f"{depth} x {count} x {width}, text_mode={self.text_mode!r}, vision_mode={self.vision_mode!r}"


class IndependentPrompts(CLIPPrompts):
    """Prompts of their own in each tower and layer, which replace those of the layer before (PromptSRC).

    Args:
        num_prompts: Prompt tokens in each layer, ``K``.
        depth: Layers with prompts, ``L``, from the first on.
        text_width: Width of the text tower, ``D_text``.
        vision_width: Width of the image tower, ``D_vision``.
        first: ``(N, D_text)`` with which the first ``N`` language prompts of the first layer begin; the rest is drawn
            from N(0, 0.02^2).
    """

    def __init__(self, num_prompts: int, depth: int, text_width: int, vision_width: int, first: Tensor) -> None:
        super().__init__(num_prompts, depth, text_width, None, "replace", "replace")
        nn.init.normal_(self.language, std=0.02)
        with torch.no_grad():
            self.language[0, : len(first)] = first[:num_prompts].to(self.language)
        self.image = nn.Parameter(nn.init.normal_(torch.empty(depth, num_prompts, vision_width), std=0.02))
        self._without = False

    def vision(self) -> Tensor | None:
        """``(L, K, D_vision)`` vision prompts, the same for all images; ``None`` within :meth:`without`."""
        return None if self._without else self.image

    @contextmanager
    def without(self) -> Iterator[None]:
        """Let the image tower answer as it did before any prompt."""
        self._without = True
        try:
            yield
        finally:
            self._without = False


class NoPrompts(CLIPPrompts):
    """In the place of prompts where both towers answer as they are, while they are trained.

    Args:
        text_width: Width of the text tower, ``D_text``.
    """

    def __init__(self, text_width: int) -> None:
        super().__init__(1, 1, text_width, None)
        del self.language
        self.register_buffer("language", torch.zeros(1, 0, text_width), persistent=False)


class ContextSets(CLIPPrompts):
    """Several sets of language prompts in front of each class name, in the first layer alone (CoOp's, MSGCoOp).

    Args:
        sets: How many, ``M``.
        num_prompts: Prompt tokens of each set, ``K``.
        text_width: Width of the text tower, ``D_text``.
        first: ``(N, D_text)`` with which the first ``N`` prompts of every set begin; to all is added a draw from N(0,
            0.02^2), without which equal sets would stay equal.
    """

    def __init__(self, sets: int, num_prompts: int, text_width: int, first: Tensor) -> None:
        super().__init__(num_prompts, sets, text_width, None)
        nn.init.normal_(self.language, std=0.02)  # (M, K, D_text)
        with torch.no_grad():
            self.language[:, : len(first)] += first[:num_prompts].to(self.language)


class FrozenCLIP(nn.Module):
    """Mixin for a live open_clip model: it stays in eval mode, whatever its module does (patch dropout is off)."""

    def train(self, mode: bool = True) -> Any:
        """Keep the frozen model in eval mode."""
        return super().train(False)


class PromptedVision(nn.Module):
    """Mixin for a live ``VisionTransformer`` of open_clip, whose ``_prompts`` are a :class:`CLIPPrompts` elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` images to ``(B, D)`` features, with the current vision prompts."""
        prompts: CLIPPrompts = self.__dict__["_prompts"]
        return encode_images(self, x, prompts.vision(), prompts.vision_mode)
