"""MVP as a drop-in callback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lightning_cl.callbacks.prompt_method import PromptMethod, checked_layers
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.finding import find_vit
from lightning_cl.mixins.mvp import MVPMixin, MVPSettings
from lightning_cl.namespace import LightningModule
from lightning_cl.nn.mvp import MVPPool
from lightning_cl.nn.mvp_losses import CVPTReduction, GSFReduction

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo

#: How a variant weighs the loss (focal weight) and averages the prompt loss.
_VARIANTS: dict[str, tuple[GSFReduction, CVPTReduction]] = {
    "paper": ("sample", "sample"),
    "code": ("batch", "broadcast"),
}


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
        backbone: Dotted path of the timm ``VisionTransformer``; found when ``None``.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss; the paper's is ``"seen"``. ``"batch"`` is what later
            re-runs use (FlyPrompt's, for one); do not compare the two.
        cache_queries: Compute the query of an evaluation image once per run.

    Raises:
        ValueError: If an argument is out of its range or unknown.
    """

    state_key = "lightning_cl.MVP"
    replaces_head = True

    def __init__(
        self,
        pool_size: int = 10,
        general_length: int = 5,
        expert_length: int = 20,
        general_layers: Sequence[int] = (0, 1),
        expert_layers: Sequence[int] = (2, 3, 4),
        use_mask: bool = True,
        use_contrastive: bool = True,
        use_afs: bool = True,
        use_gsf: bool = True,
        alpha: float = 0.5,
        gamma: float = 2.0,
        margin: float = 0.5,
        cvpt_weight: float = 1.0,
        variant: Literal["paper", "code"] = "paper",
        use_last_layer: bool = False,
        backbone: str | None = None,
        head: str | None = None,
        train_mask: TrainMask = "seen",
        cache_queries: bool = True,
    ) -> None:
        super().__init__(backbone, head, train_mask, reset_optimizer=False, cache_queries=cache_queries)
        checked_layers((*general_layers, *expert_layers))
        if variant not in _VARIANTS:
            raise ValueError(f'`variant` is {variant!r}; give "paper" or "code".')
        if not 0 <= alpha <= 1 or gamma < 0 or margin <= 0:
            raise ValueError(
                f"`alpha` is {alpha}, `gamma` is {gamma} and `margin` is {margin}; give a share in [0, 1], an exponent "
                "of at least 0 and a divisor above 0."
            )
        self.pool_size, self.general_length, self.expert_length = pool_size, general_length, expert_length
        self.general_layers, self.expert_layers = tuple(general_layers), tuple(expert_layers)
        self.use_mask, self.use_contrastive, self.use_afs, self.use_gsf = use_mask, use_contrastive, use_afs, use_gsf
        self.alpha, self.gamma, self.margin = alpha, gamma, margin
        self.cvpt_weight, self.variant, self.use_last_layer = cvpt_weight, variant, use_last_layer
        self.adds_loss = cvpt_weight != 0

    def provider(self, info: StreamInfo, width: int, depth: int, num_outputs: int | None = None) -> MVPPool:
        """The pool, with masks on ``num_outputs`` logits; see :class:`~lightning_cl.nn.MVPPool`."""
        return MVPPool(
            info.num_classes if num_outputs is None else num_outputs,
            width,
            pool_size=self.pool_size,
            general_length=self.general_length,
            expert_length=self.expert_length,
            general_layers=self.general_layers,
            expert_layers=self.expert_layers,
            use_mask=self.use_mask,
            use_contrastive=self.use_contrastive,
            cvpt_weight=self.cvpt_weight,
            cvpt_reduction=_VARIANTS[self.variant][1],
            use_last_layer=self.use_last_layer,
        )

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Add the pool and the masks; see :class:`ContinualMethod`."""
        _, vit = find_vit(pl_module, self.backbone)
        self.extend(pl_module, MVPMixin, info)
        assert isinstance(pl_module, MVPMixin)
        outputs = pl_module.continual_head.out_features  # those of a head that is too large have a mask, too
        provider = self.provider(info, vit.embed_dim, len(vit.blocks), outputs)
        pl_module.add_prompts(provider, self.backbone, self.cache_queries)
        reduction = _VARIANTS[self.variant][0]
        settings = MVPSettings(self.use_afs, self.use_gsf, self.alpha, self.gamma, self.margin, reduction)
        pl_module.configure_mvp(settings)
