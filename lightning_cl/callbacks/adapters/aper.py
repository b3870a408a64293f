"""APER: adapters learn the first task; then class means of the frozen and the adapted features side by side."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_cl.callbacks.adapters.tunings import Tuning, several_paths, tuned
from lightning_cl.callbacks.arguments import at_least, choice, fraction
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.head_kinds import check_own_rows
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.adapters import Adapters, unfolded
from lightning_cl.nn.adapters.paths import beside
from lightning_cl.nn.feature_reuse import FeatureBypass
from lightning_cl.nn.heads import PrototypeHead
from lightning_cl.nn.load_hooks import after_load
from lightning_cl.training import TaskData
from lightning_cl.training.evaluated_batch import KnownFeatures
from lightning_cl.training.find_backbone import find_vit
from lightning_cl.training.first_task import FirstTaskAdapters


class AdaptedPrototypes(FirstTaskAdapters, KnownFeatures):
    """A cosine head and adapters in the first task; afterwards class means of ``[f_frozen; f_adapted]``."""

    makes_logits = True

    def __init__(
        self, module: Any, adapters: Adapters, num_classes: int, frozen: nn.Module | None, cache: bool
    ) -> None:
        super().__init__(adapters)
        self.frozen = frozen  # the network as it was, where all its weights are tuned
        head = module.continual_head
        self.means = PrototypeHead(num_classes, 2 * head.in_features, "cosine", normalize=False)
        self.bypass, self.cache_features = FeatureBypass(module, head, adapters), cache
        after_load(self, "_begin_anew")

    def choose_paths(self) -> None:
        """The adapted network while it learns; then the frozen one, too."""
        self.adapters.select(*((0,) if self.learns else (None, 0)))

    def _begin_anew(self) -> None:
        self.choose_paths()
        self.forget_features()

    def trains_now(self) -> bool:
        """In the first task only."""
        return self.learns

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """Cosines with the head's rows, or with the class means."""
        if self.learns:
            return self.logits(module, features, logits)
        answer: Tensor = self.means(unfolded(self.adapters, features))
        return answer.to(logits.dtype)

    def end_task(self, module: Any, data: TaskData) -> None:
        """Count the means of the task's classes; after the first task nothing is trained any more."""
        self.finish()
        self.choose_paths()
        for features, labels, _ in data.features(lambda inputs: beside(self.adapters, module.head_input(inputs))):
            self.means.update(features, labels)


@dataclass(eq=False)
class APER(ContinualMethod):
    """APER, first named ADAM (Zhou et al., IJCV 2024, arXiv:2303.07338), with all five of its tunings.

    First task: parts of the ViT and a cosine head with a learned scale are trained by the user's loss, see ``tuning``.
    Then nothing is trained: a class is the mean of ``[f_frozen(x); f_tuned(x)]`` over its training images on the
    evaluation transform, and logits are cosines of the whole vector. Both features come from one pass of a doubled
    batch, or from two passes (VPT, all weights). Needs the end of a task; keeps one mean a class and no sample, and
    with ``"finetune"`` a second ViT. Works on timm ViTs.

    Args:
        tuning: ``"adapter"``: ``s * U relu(D x)`` beside the MLP of every block (AdaptFormer); ``"ssf"``: a scale and a
            shift of the channels of every layer; ``"vpt_shallow"``: tokens through all blocks; ``"vpt_deep"``: tokens
            of each block's own; ``"finetune"``: all weights.
        rank: Hidden size of an adapter, at least 1.
        scale: ``s`` of what adapters add, at least 0; with 0 it is ``PrototypeClassifier("cosine", normalize=False)``.
        dropout: Of adapters, behind the ReLU, in [0, 1].
        tokens: Of VPT, at least 1; they start at zero.
        cache_features: Compute the features of an evaluation image once per run. Needs evaluation transforms without
            randomness.
        backbone: Dotted path of the ViT; found when ``None``.
        train_mask: Which classes compete in the training loss of the first task.

    Raises:
        ValueError: If a number is out of its range; when attached, without a ViT whose blocks can be adapted.
    """

    state_key: ClassVar[str] = "lightning_cl.APER"
    boundaries: ClassVar[Boundaries] = "taken"
    adapts_backbone: ClassVar[bool] = True
    replaces_head: ClassVar[bool] = True
    works_on: ClassVar[str] = "timm VisionTransformer"
    small: ClassVar[dict[str, Any]] = {"rank": 4, "dropout": 0.0}

    tuning: Tuning = choice(Tuning, default="adapter")
    rank: int = at_least(1, default=64)
    scale: float = at_least(0, default=0.1)
    dropout: float = fraction(default=0.1)
    tokens: int = at_least(1, default=5)
    cache_features: bool = True
    _: KW_ONLY
    backbone: str | None = None
    train_mask: TrainMask = "seen"

    def attach(self, pl_module: Any, info: Any) -> None:
        """Adapt the ViT; see :class:`ContinualMethod`."""
        find_vit(pl_module, self.backbone, "APER needs")  # a module without one stays as it is
        super().attach(pl_module, info)

    def build(self, pl_module: Any, info: Any) -> AdaptedPrototypes:
        """Put the parts that are tuned into the ViT, and freeze the rest."""
        _, vit = find_vit(pl_module, self.backbone)
        check_own_rows(pl_module, "APER")
        adapters, frozen = tuned(vit, self)
        several_paths(vit, adapters, frozen, self)
        return AdaptedPrototypes(pl_module, adapters, info.num_classes, frozen, self.cache_features)
