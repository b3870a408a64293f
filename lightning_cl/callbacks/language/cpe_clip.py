"""CPE-CLIP as a drop-in callback: few-shot class-incremental learning with prompts in both towers of CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.language.text_features import TextFeatures
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.class_texts import class_names as checked_names
from lightning_cl.nn.class_texts import fill_templates
from lightning_cl.nn.clip_prompts import CLIPPrompts, gradient_shares
from lightning_cl.nn.clip_towers import PROMPT_MODES, PromptMode, check_text_tower, check_vision_tower, text_tower
from lightning_cl.training.find_backbone import find_clip


@dataclass(eq=False)
class CPECLIP(TaskwiseMethod):
    """CPE-CLIP (D'Alessandro et al., ICCV workshops 2023, arXiv:2303.04751), on any open_clip model in the module.

    CLIP is frozen. Trained are language prompts in the first layers of the text tower, and one projection that makes
    vision prompts of them; the classifier is the text features of the class names. All classes and sessions share the
    prompts; what protects old classes is that each later session's loss is multiplied by its share of all classes.

    The module is a :class:`~lightning_cl.models.CLIPClassifier`, or any that puts the image features of an open_clip
    model into a ``Linear`` with one output per class; that head is frozen, and answered in its place. The published
    setting is SGD with momentum, ``lr_schedule="cpe_clip"`` at a rate of 0.001, five epochs a session, no augmentation.
    Those rates are for CLIP's own weights: with a small text tower that cannot place a session's names, its steps may
    cost more on old classes than they bring, so keep the frozen model's row beside it.

    Args:
        num_prompts: Prompt tokens in each layer, ``K``.
        prompt_depth: Layers with prompts, from the first on; ``None``: as many as the shallower tower has.
        text_mode: How prompts of successive layers meet in the text tower: ``"replace"``, ``"accumulate"`` or
            ``"accumulate_same"``, see :func:`~lightning_cl.nn.clip_towers.renew_prompts`.
        vision_mode: The same in the image tower.
        vision_prompts: ``False`` leaves the image tower as it is (ablation).
        template: What is read of a class; the name takes the place of ``{}``.
        class_names: One name of each class, in the order of the labels; ``None``: those of the stream.
        logit_scale: Factor of the cosines, above 0; the checkpoint's own is not used.
        regularization: ``"balance"`` multiplies the loss of task ``t`` by ``|C_t| / sum_{i <= t} |C_i|``; ``"none"``.
        backbone: Dotted path of the open_clip model; found when ``None``.
        train_mask: Which classes compete in the training loss; texts of others are not read in a step.

    Raises:
        ValueError: If a number is out of its range or a choice unknown; when attached, for class names that are missing
            or not different, texts and prompts longer than the context, towers that cannot take prompts, or more
            layers than there are.
    """

    state_key: ClassVar[str] = "lightning_cl.CPECLIP"
    needs_forward: ClassVar[bool] = False
    adds_loss: ClassVar[bool] = True  # it scales the loss that `training_step` returns
    trains_head: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    works_on: ClassVar[str] = "open_clip models"
    small: ClassVar[dict[str, Any]] = {"num_prompts": 2, "prompt_depth": 2}
    family: ClassVar[str] = "clip"

    num_prompts: int = at_least(1, default=2)
    prompt_depth: int | None = at_least(1, default=None)
    text_mode: PromptMode = "replace"
    vision_mode: PromptMode = "accumulate"
    vision_prompts: bool = True
    template: str = "{}."
    class_names: Sequence[str] | None = None
    logit_scale: float = above(0, default=100.0)
    regularization: Literal["balance", "none"] = "balance"
    backbone: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, mode in (("text_mode", self.text_mode), ("vision_mode", self.vision_mode)):
            if mode not in PROMPT_MODES:
                raise ValueError(f'`{name}` is {mode!r}; give "replace", "accumulate" or "accumulate_same".')
        if self.regularization not in ("balance", "none"):
            raise ValueError(f'`regularization` is {self.regularization!r}; give "balance" or "none".')
        fill_templates(["name"], [self.template])
        self.class_names = None if self.class_names is None else list(self.class_names)

    def build(self, pl_module: Any, info: Any) -> TextFeatures:
        """Freeze CLIP; text features answer, under prompts in both towers."""
        _, clip = find_clip(pl_module, self.backbone)
        texts = fill_templates(checked_names(self.class_names or info.class_names, info.num_classes), [self.template])
        return TextFeatures(pl_module, self._prompts(clip, info), texts, self.backbone, self.logit_scale)

    def _prompts(self, clip: Any, info: Any) -> CLIPPrompts:
        """Prompts that fit both towers."""
        check_text_tower(clip)
        blocks, vision_width = text_tower(clip).transformer.resblocks, None
        depth = len(blocks)
        if self.vision_prompts:
            check_vision_tower(clip.visual)
            vision_width = clip.visual.class_embedding.shape[0]
            depth = min(depth, len(clip.visual.transformer.resblocks))
        if self.prompt_depth is not None and self.prompt_depth > depth:
            raise ValueError(
                f"`prompt_depth` is {self.prompt_depth}, but the shallower tower has {depth} layers; give no more."
            )
        width = text_tower(clip).token_embedding.weight.shape[1]
        shares = gradient_shares(info.classes_per_task) if self.regularization == "balance" else (1.0,)
        return CLIPPrompts(
            self.num_prompts,
            self.prompt_depth or depth,
            width,
            vision_width,
            self.text_mode,
            self.vision_mode,
            shares,
        )
