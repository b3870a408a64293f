"""MVP's training step: masked logits, scaled features and a weight per sample, around the user's own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.mixins.batch import unpack
from lightning_cl.mixins.prompt import PromptMixin
from lightning_cl.nn.mvp_losses import (
    GSFReduction,
    fit_scale,
    focal_weight,
    gradient_conflict,
    scale_logits,
    wide,
)

if TYPE_CHECKING:
    from lightning_cl.nn.mvp import MVPPool


@dataclass(frozen=True)
class MVPSettings:
    """See :class:`~lightning_cl.callbacks.MVP`."""

    use_afs: bool = True
    use_gsf: bool = True
    alpha: float = 0.5
    gamma: float = 2.0
    margin: float = 0.5
    gsf_reduction: GSFReduction = "sample"

    @property
    def uses_labels(self) -> bool:
        """Whether the training loss depends on the labels in other ways than the user's."""
        return self.use_afs or self.use_gsf


class MVPMixin(PromptMixin):
    """Multiplies the head's logits with the selected mask; while training it also scales features and weighs samples.

    ``configure_continual`` and :meth:`add_prompts` with an :class:`~lightning_cl.nn.MVPPool` come first, then
    :meth:`configure_mvp`. The user's step and loss stay: a sample is weighed by scaling the gradient of its logits,
    which is exact for every loss that is a mean over the samples. The module must pass the batch's images in order.
    """

    prompts: MVPPool

    def configure_mvp(self, settings: MVPSettings) -> None:
        """Set what the training loss does, and put the mask on the head."""
        self.__dict__["_mvp"] = settings
        self.__dict__["_mvp_labels"] = None
        # Before the class mask: 0 * -inf would be NaN.
        self.continual_head.register_forward_hook(self._answer, prepend=True)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """The user's step on masked logits of scaled features; the gradient of every sample gets its weight."""
        self.prompts.begin_step(counted=not self._only_fills_up())
        settings: MVPSettings = self.__dict__["_mvp"]
        self.__dict__["_mvp_labels"] = (
            class_labels(unpack(batch, self.continual.batch_keys)[1]) if settings.uses_labels else None
        )
        try:
            return super().training_step(batch, *args, **kwargs)
        finally:
            self.__dict__["_mvp_labels"] = None

    def collect_losses(self) -> None:
        """The prompt loss; and what the step selected is counted, for the steps to come."""
        super().collect_losses()
        self.prompts.end_step()

    def _only_fills_up(self) -> bool:
        """Whether this process got no sample of the global batch and repeats another's."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return False
        stream: Any = getattr(self.trainer, "datamodule", None)
        if stream is None or self.trainer.world_size == 1:
            return False
        joined = getattr(stream, "joined", None)  # a memory's samples behind the stream's
        own = stream.train_batch(self.trainer.fit_loop.batch_idx).real
        return bool(own == 0 and (joined is None or joined.local == 0))

    # ------------------------------------------------------------------ the head

    def _answer(self, head: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of the head, in at least 32 bits."""
        labels: Tensor | None = self.__dict__["_mvp_labels"] if torch.is_grad_enabled() else None
        pool = self.prompts
        if labels is None and not pool.use_mask:
            return output
        logits = wide(output)
        scale = pool.logit_scale(logits.shape[0]) if pool.use_mask else torch.ones_like(logits[:, :1])
        if labels is None:
            return logits * scale
        if len(labels) != len(logits):
            raise ValueError(
                f"the head was called with {len(logits)} samples, but the batch has {len(labels)} labels; MVP scales "
                "and weighs a sample by its label, so let `training_step` pass the batch's images once, in order, or "
                "set `use_afs=False` and `use_gsf=False`."
            )
        return self._trained(head, wide(args[0].detach().flatten(1)), logits, scale, labels)

    def _trained(self, head: nn.Linear, features: Tensor, logits: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
        """Masked logits of the scaled features, whose gradients are weighed."""
        settings: MVPSettings = self.__dict__["_mvp"]
        answer = logits
        if settings.use_afs:
            divisor = fit_scale(features, wide(head.weight.detach()[labels]), settings.margin)
            answer = scale_logits(logits, head.bias, divisor)
        answer = answer * scale
        if settings.use_gsf and answer.requires_grad:
            weight = self._weights(features, logits.detach(), scale.detach(), labels)
            answer.register_hook(lambda gradient: gradient * weight[:, None])
        return answer

    def _weights(self, features: Tensor, logits: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
        """``(B,)`` focal weights, from features as they are and the logits of the classes that compete."""
        settings: MVPSettings = self.__dict__["_mvp"]
        probability = self.continual.mask(logits * scale).softmax(dim=1)
        residual = (probability - F.one_hot(labels, probability.shape[1])) * scale
        counted = self.prompts.counted
        conflict = gradient_conflict(features, residual, labels, counted)
        return focal_weight(conflict, settings.alpha, settings.gamma, settings.gsf_reduction, counted)


def class_labels(targets: Tensor) -> Tensor:
    """``(B,)`` labels as int64.

    Raises:
        ValueError: If there is not one integer per sample.
    """
    if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise ValueError(
            f"the batch's targets are {targets.dtype} of shape {tuple(targets.shape)}, but MVP needs one integer label "
            "per sample; give class ids, or set `use_afs=False` and `use_gsf=False`."
        )
    return targets.long()
