"""MVP: masked logits, scaled features and a weight per sample, around the user's own loss; as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.head_kinds import check_linear
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod, checked_layers
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.prompt import PromptedBackbone
from lightning_cl.nn.distributed import is_distributed
from lightning_cl.nn.head_layer import class_rows
from lightning_cl.nn.mvp import MVPPool
from lightning_cl.nn.mvp_losses import (
    CVPTReduction,
    GSFReduction,
    fit_scale,
    focal_weight,
    gradient_conflict,
    scale_logits,
)
from lightning_cl.nn.precision import wide
from lightning_cl.training import Step

#: How a variant weighs the loss (focal weight) and averages the prompt loss.
_VARIANTS: dict[str, tuple[GSFReduction, CVPTReduction]] = {
    "paper": ("sample", "sample"),
    "code": ("batch", "broadcast"),
}


class MaskedPrompts(PromptedBackbone):
    """Multiplies the logits with the selected mask; while training it also scales features and weighs samples.

    The user's step and loss stay: a sample is weighed by scaling the gradient of its logits, which is exact for every
    loss that is a mean over the samples. The module must pass the batch's images in order.

    Args:
        module: The LightningModule, whose head is known.
        pool: The prompts, with a mask for every output of the head.
        method: What the training loss does.
    """

    provider: MVPPool

    def __init__(self, module: Any, pool: MVPPool, method: MVP) -> None:
        super().__init__(module, pool, method.backbone, method.cache_queries)
        self.method = method
        self._step: tuple[Step, Tensor] | None = None

    def start_step(self, step: Step) -> None:
        """Count selections from here on, and read the labels."""
        super().start_step(step)
        self.provider.begin_step(counted=not is_distributed() or step.counts)
        uses_labels = self.method.use_afs or self.method.use_gsf
        self._step = (step, class_labels(step.targets)) if uses_labels else None

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The prompt loss; and what the step selected is counted, for the steps to come."""
        self._step = None
        terms = super().losses(step)
        self.provider.end_step()
        return terms

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` masked logits, in at least 32 bits."""
        # Not in further passes over other samples.
        known = self._step is not None and torch.is_grad_enabled() and module.continual.calls is self._step[0].calls
        labels = self._step[1] if self._step is not None and known else None
        if labels is None and not self.provider.use_mask:
            return logits
        logits = wide(logits)
        scale = self.provider.logit_scale(logits.shape[0]) if self.provider.use_mask else torch.ones_like(logits[:, :1])
        if labels is None:
            return logits * scale
        if len(labels) != len(logits):
            raise ValueError(
                f"the head was called with {len(logits)} samples, but the batch has {len(labels)} labels; MVP scales "
                "and weighs a sample by its label, so let `training_step` pass the batch's images once, in order, or "
                "set `use_afs=False` and `use_gsf=False`."
            )
        return self._trained(module, wide(features.detach()), logits, scale, labels)

    def _trained(self, module: Any, features: Tensor, logits: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
        """Masked logits of the scaled features, whose gradients are weighed."""
        head, method, answer = module.continual_head, self.method, logits
        if method.use_afs:
            divisor = fit_scale(features, wide(class_rows(head).detach()[labels]), method.margin)
            answer = scale_logits(logits, head.bias, divisor)
        answer = answer * scale
        if method.use_gsf and answer.requires_grad:
            weight = self._weights(module, features, logits.detach(), scale.detach(), labels)
            answer.register_hook(lambda gradient: gradient * weight[:, None])
        return answer

    def _weights(self, module: Any, features: Tensor, logits: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
        """``(B,)`` focal weights, from features as they are and the logits of the classes that compete."""
        probability = module.continual.mask(logits * scale).softmax(dim=1)
        residual = (probability - F.one_hot(labels, probability.shape[1])) * scale
        counted, reduction = self.provider.counted, _VARIANTS[self.method.variant][0]
        conflict = gradient_conflict(features, residual, labels, counted)
        return focal_weight(conflict, self.method.alpha, self.method.gamma, reduction, counted)


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


@dataclass(eq=False)
class MVP(PromptMethod):
    """MVP: mask and visual prompt tuning for online streams without boundaries (Moon et al., ICCV 2023, 2308.09303).

    A general prompt is appended in the first layers. In later layers each image has the expert prompt that its query
    selects from a pool, with a learned factor in (0, 2) for every logit. A contrastive loss spreads the keys. The
    loss of a sample counts for more if its gradient opposes its batch's, and is computed on a feature that is divided
    by how badly its class fits; predictions are not. Nothing depends on task boundaries. With a replay callback it is
    MVP-R.

    The user's loss must be a mean over the batch's samples with one integer label each.

    Args:
        pool_size: Entries of the pool; not the number of tasks.
        general_length: Tokens of the general prompt per layer.
        expert_length: Tokens of an expert prompt per layer.
        general_layers: Zero-based layers of the general prompt.
        expert_layers: Zero-based layers of the expert prompts.
        use_mask: Multiply the logits with the selected mask.
        use_contrastive: Train the keys contrastively and weigh the selection with how often an entry was used.
        use_afs: Adaptive feature scaling in the training loss.
        use_gsf: Weigh samples by the similarity of their gradients.
        alpha: Share of the focal part of a sample's weight, in [0, 1].
        gamma: Exponent of the focal part.
        margin: Smallest divisor of a feature.
        cvpt_weight: Weight of the prompt loss.
        variant: Where the paper and its public code differ: ``"paper"`` weighs each sample, and averages the samples'
            prompt losses; ``"code"``, with which the published numbers were made, weighs the batch's mean loss by the
            mean weight, and divides every distance by every sample's temperature.
        use_last_layer: Read the query after the last block; by default, as published, after the last but one.
        train_mask: Which classes compete in the training loss; the paper's is ``"seen"``. ``"batch"`` is what later
            re-runs use (FlyPrompt's, for one); do not compare the two.
        cache_queries: Compute the query of an evaluation image once per run.

    Raises:
        ValueError: If an argument is out of its range or unknown.
    """

    state_key: ClassVar[str] = "lightning_cl.MVP"
    replaces_head: ClassVar[bool] = True
    needs_tokens: ClassVar[bool] = True
    small: ClassVar[dict[str, Any]] = {
        "pool_size": 4,
        "general_length": 2,
        "expert_length": 3,
        "general_layers": (0,),
        "expert_layers": (1, 2),
    }

    pool_size: int = 10
    general_length: int = 5
    expert_length: int = 20
    general_layers: Sequence[int] = (0, 1)
    expert_layers: Sequence[int] = (2, 3, 4)
    use_mask: bool = True
    use_contrastive: bool = True
    use_afs: bool = True
    use_gsf: bool = True
    alpha: float = 0.5
    gamma: float = 2.0
    margin: float = 0.5
    cvpt_weight: float = 1.0
    variant: Literal["paper", "code"] = "paper"
    use_last_layer: bool = False
    reset_optimizer: bool = field(init=False, default=False)
    cache_training_queries: bool = field(init=False, default=False)  # made for streams without boundaries
    _: KW_ONLY
    train_mask: TrainMask = "seen"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_layers((*self.general_layers, *self.expert_layers))
        self.general_layers, self.expert_layers = tuple(self.general_layers), tuple(self.expert_layers)
        if self.variant not in _VARIANTS:
            raise ValueError(f'`variant` is {self.variant!r}; give "paper" or "code".')
        if not 0 <= self.alpha <= 1 or self.gamma < 0 or self.margin <= 0:
            raise ValueError(
                f"`alpha` is {self.alpha}, `gamma` is {self.gamma} and `margin` is {self.margin}; give a share in "
                "[0, 1], an exponent of at least 0 and a divisor above 0."
            )

    @property
    def adds_loss(self) -> bool:  # type: ignore[override]
        """Whether there is a prompt loss."""
        return self.cvpt_weight != 0

    def provider(self, info: StreamInfo, width: int, num_outputs: int) -> MVPPool:
        """The pool, with a mask for every output of a head that is too large, too."""
        reduction = _VARIANTS[self.variant][1]
        return self.filled(MVPPool, num_outputs=num_outputs, width=width, cvpt_reduction=reduction)

    def build(self, pl_module: Any, info: Any) -> MaskedPrompts:
        """The pool and the masks."""
        if self.use_afs or self.use_gsf:
            why, advice = (
                "scales features and weighs samples by the head's rows",
                "set `use_afs` and `use_gsf` to False",
            )
            check_linear(pl_module, "MVP", why, advice)
        return MaskedPrompts(pl_module, self.provider(info, *self.sizes(pl_module)), self)
