"""PODNet-style distillation: pooled maps of every stage, final features, and several cosine proxies a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.distillation.teacher import PreviousModel, class_counts
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.callbacks.taskwise import SeenClassesMethod
from lightning_cl.nn.guard import whole
from lightning_cl.nn.heads import proxy_logits
from lightning_cl.nn.losses import cosine_distance, pooled_distance
from lightning_cl.nn.token_maps import stage_maps
from lightning_cl.training import Step
from lightning_cl.training.find_modules import find_stages
from lightning_cl.training.loss_terms import zero_through


class PooledTeacher(PreviousModel):
    """Proxies in place of the head, and the distances of stages and features."""

    makes_logits = True
    growing = ("proxies",)

    def __init__(self, module: Any, stages: Sequence[str], spatial: float, flat: float, proxies: int, scale: float):
        super().__init__(module, strength=max(spatial, flat))
        self.stages, self.spatial, self.flat = tuple(stages), spatial, flat
        head = module.continual_head
        bound = 1 / sqrt(head.in_features)
        self.proxies = nn.Parameter(torch.empty(head.out_features, proxies, head.in_features).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.full((), scale))

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` scores of the proxies, times the scale."""
        scores = proxy_logits(features.to(self.proxies.dtype), self.proxies, self.scale)
        return scores + zero_through(module.continual_head.parameters(), scores.device)  # DDP waits for its gradient

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Both distances, times ``sqrt(K / K_new)``."""
        now = stage_maps(step.outputs, self.stages)  # in the first task, too: layers that give no maps are told at once
        call, (old, new) = self.asked(step), class_counts(step.task)
        if call is None:
            return {}
        factor, terms = sqrt((old + new) / max(new, 1)), {}
        if self.flat:
            terms["flat"] = factor * self.flat * cosine_distance(step.features, call.features)
        if self.spatial:
            each = [pooled_distance(*pair) for pair in zip(now, stage_maps(call.outputs, self.stages), strict=True)]
            terms["spatial"] = factor * self.spatial * torch.stack(each).mean()
        return terms

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Proxies of classes that do not compete, and the head, which does not answer."""
        yield self.proxies, (~module.continual.mask.train_allowed).nonzero().flatten()
        yield from whole(p for p in module.continual_head.parameters() if p.requires_grad)


@dataclass(eq=False)
class PODNet(SeenClassesMethod):
    """PODNet-style distillation of pooled outputs (after Douillard et al., ECCV 2020, arXiv:2004.13513).

    Adds ``sqrt(K / K_new) * (spatial * mean_l |p(h_l) - p(h_l_old)| + flat * (1 - cos(f, f_old)))``, mean over the
    batch: ``h_l`` is the map of stage ``l``, ``p`` its squares summed over the height and over the width, both side by
    side at unit length, ``f`` what the head is given, ``old`` the model at the end of the task before in eval mode. The
    logit of a class is ``s * sum_k softmax_k(c_k) c_k`` of the cosines ``c_k`` to its proxies, with a learned scale.
    Not as published: the user's loss stands for NCA with a margin (the released code takes the margin off all scores,
    where it has no effect, and is the cross-entropy wherever the true class scores highest); new proxies begin at
    random, not as k-means of features; no fine-tuning on a balanced set. Needs task boundaries and one more forward
    pass a step; made for a memory: put :class:`ExperienceReplay` beside it. Works on any network with stages that
    give maps ``(B, C, H, W)`` or tokens, whose patches are read as a square map.

    Args:
        spatial: Weight of the stages, at least 0; the paper's is 3 (CIFAR-100), a reproduction's 5.
        flat: Weight of the features, at least 0; the paper's.
        proxies: Of each class, at least 1; the paper's.
        scale: ``s`` at the start, above 0. It is trained at the user's learning rate: 1, which is the paper's, needs
            many steps at a high one.
        stages: Dotted paths of the stages; found when ``None``: ``layer1`` to ``layer4`` of a ResNet, ``stages``, or
            the ``blocks`` of a transformer, which Hugging Face names ``layer`` or ``layers``.

    Raises:
        ValueError: If a number is out of its range; when attached, without stages, or to a network of texts; in the
            first step, if a stage gives neither a map nor tokens.
    """

    state_key: ClassVar[str] = "lightning_cl.PODNet"
    boundaries: ClassVar[Boundaries] = "taken"
    adds_loss: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True

    spatial: float = at_least(0, default=5.0)
    flat: float = at_least(0, default=1.0)
    proxies: int = at_least(1, default=10)
    scale: float = above(0, default=1.0)
    stages: Sequence[str] | None = None

    def build(self, pl_module: Any, info: Any) -> PooledTeacher:
        """A copy of the weights that are trained when the method is attached, and the proxies; watch the stages."""
        stages = find_stages(pl_module, self.stages) if self.spatial else ()
        for name in stages:
            pl_module.watch_layer(name)
        return PooledTeacher(pl_module, stages, self.spatial, self.flat, self.proxies, self.scale)
