"""LGCL as a drop-in callback beside a prompt pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.language.language_guided_head import provider_of, with_plain_targets
from lightning_cl.mixins.base import TrainMask
from lightning_cl.mixins.lgcl import LGCLMixin
from lightning_cl.nn.lgcl import TextGuide
from lightning_cl.targets import TargetProvider

if TYPE_CHECKING:
    from lightning_cl.datamodules import StreamInfo


class LGCL(ContinualMethod):
    """Language guidance for prompt pools (LGCL, Khan et al., ICCV 2023, arXiv:2308.15827).

    Pulls the keys that a step uses towards a text that names the task's classes, and away from an earlier task's; and
    the features towards the name of their class, and away from another's. ``callbacks=[DualPrompt(), LGCL()]``. Without
    a pool, or with one without keys (``CODAPrompt``, ``OnePrompt``), only the features are guided. The head is trained
    as before, and inference needs no text. Which texts the paper's negatives are is not published in full: here an
    earlier task and another class of the same task, drawn anew in every step. In an online stream, where nobody tells a
    task's classes, those that arrived since it began describe it.

    Args:
        targets: Where texts get their vectors, see :class:`LanguageGuidedHead`; the paper used CLIP ViT-L/14:
            ``OpenCLIPTargets("ViT-L-14-quickgelu", "openai")``. Vectors of another length are turned into the feature
            space.
        task_weight: Weight of the term on the keys.
        class_weight: Weight of the term on the features.
        head: Dotted path of the layer that makes the class logits; found when ``None``.
        train_mask: Which classes compete in the training loss; the pool's setting wins if it is stricter.

    Raises:
        ValueError: For a negative weight.
    """

    state_key = "lightning_cl.LGCL"
    adds_loss = True

    def __init__(
        self,
        targets: TargetProvider | str = "minilm",
        task_weight: float = 1.0,
        class_weight: float = 1.0,
        head: str | None = None,
        train_mask: TrainMask = "seen",
    ) -> None:
        super().__init__(head=head, train_mask=train_mask, reset_optimizer=False)
        for name, value in (("task_weight", task_weight), ("class_weight", class_weight)):
            if value < 0:
                raise ValueError(f"`{name}` is {value}; give a weight of at least 0.")
        self.targets, self.task_weight, self.class_weight = targets, task_weight, class_weight

    def attach(self, pl_module: LightningModule, info: StreamInfo) -> None:
        """Add the texts' vectors and the loss terms."""
        provider = provider_of(self.targets)
        self.extend(pl_module, LGCLMixin, info)
        assert isinstance(pl_module, LGCLMixin)
        width = pl_module.continual_head.in_features
        guide = TextGuide(info.num_classes, info.num_tasks, width, provider.dim)
        pl_module.add_guide(guide, provider, self.task_weight, self.class_weight)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; a provider as its class and arguments."""
        return with_plain_targets(super().config())
