"""PromptSRC: prompts in both towers of CLIP that regulate themselves by the frozen model and by their average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.language.clip_method import CLIPPromptMethod, frozen_features, word_embeddings
from lightning_cl.callbacks.language.text_features import TextFeatures
from lightning_cl.nn.class_texts import fill_templates
from lightning_cl.nn.clip_prompts import IndependentPrompts
from lightning_cl.nn.clip_towers import check_text_tower, check_vision_tower, text_tower
from lightning_cl.nn.precision import wide
from lightning_cl.nn.prompt_terms import epoch_weights, mean_divergence
from lightning_cl.nn.weights import NamedTensors
from lightning_cl.training import Step, TaskData
from lightning_cl.training.find_backbone import find_clip


class RegulatedPrompts(TextFeatures):
    """The three terms that hold features and answers near those without prompts, and the average over a task's epochs.

    Args:
        frozen_texts: For each class what is read of it without prompts.
    """

    averaged: Tensor

    def __init__(
        self,
        module: Any,
        prompts: IndependentPrompts,
        texts: Sequence[str],
        frozen_texts: Sequence[Sequence[str]],
        method: PromptSRC,
    ) -> None:
        super().__init__(module, prompts, texts, method.backbone, method.logit_scale)
        self.method, self.frozen_texts = method, frozen_texts
        self.frozen = torch.empty(0)  # (C, D), read when a fit begins, once the weights of CLIP are those of the run
        self.total = NamedTensors({name: torch.zeros_like(p) for name, p in prompts.named_parameters()})
        self.register_buffer("averaged", torch.zeros((), dtype=torch.float64))  # weight of the epochs in `total`

    def start_run(self, module: Any) -> None:
        """Read the frozen texts."""
        super().start_run(module)
        self.frozen = frozen_features(self.texts.clip, self.frozen_texts, unit=False)

    def start_task(self, module: Any, task: Any) -> None:
        """Begin the average anew."""
        super().start_task(module, task)
        self.averaged.zero_()
        for _, total in self.total.items():
            total.zero_()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``25 mean|g_p - g| + 10 mean|f_p - f| + KL(p_0 || p) / (B C)`` over the classes that compete."""
        method, prompts, scale = self.method, self.prompts, self.texts.scale
        assert isinstance(prompts, IndependentPrompts)
        columns, rows = self._trained_features(step.module)
        with prompts.without():
            frozen = F.normalize(wide(step.look().features), dim=1)
        features, kept = F.normalize(wide(step.features), dim=1), self.frozen[columns].to(rows.dtype)
        logits, taught = scale * features @ rows.T.to(features), scale * frozen @ kept.T.to(frozen)
        return {
            "prompt_src_text": method.text_weight * (rows - kept).abs().mean(),
            "prompt_src_image": method.image_weight * (features - frozen).abs().mean(),
            "prompt_src_logits": method.logit_weight * mean_divergence(logits, taught),
        }

    @torch.no_grad()
    def after_step(self, module: Any, optimizer: Any) -> None:
        """Count the prompts in at the end of an epoch."""
        trainer = module.trainer
        if trainer.fit_loop.batch_idx + 1 < trainer.num_training_batches:
            return
        task = trainer.datamodule.task
        weights = epoch_weights(task.epochs, self.method.center * task.epochs, self.method.spread * task.epochs)
        weight = float(weights[trainer.current_epoch - task.first_epoch])
        for name, prompt in self.prompts.named_parameters():
            self.total[name].add_(prompt, alpha=weight)
        self.averaged += weight

    @torch.no_grad()
    def end_task(self, module: Any, data: TaskData) -> None:
        """The average over the epochs answers from here on, and the next task begins with it."""
        if bool(self.averaged > 0):
            for name, prompt in self.prompts.named_parameters():
                prompt.copy_(self.total[name] / self.averaged)


@dataclass(eq=False)
class PromptSRC(CLIPPromptMethod):
    """Self-regulating prompts (PromptSRC; Khattak et al., ICCV 2023, arXiv:2307.06948), on any open_clip model.

    CLIP is frozen. Trained are prompts in the first layers of both towers, independent of each other; the classifier is
    the text features of the class names. To the module's cross-entropy come ``text_weight * mean|g_p - g| +
    image_weight * mean|f_p - f| + logit_weight * KL(p_0 || p) / (B C)``: text features ``g``, image features ``f`` and
    answers ``p`` with prompts against those without, where ``g`` is the mean over many templates. At a task's end the
    prompts become their mean over its epochs ``e = 1..N``, weighted ``exp(-(e - center N)^2 / (2 (spread N)^2))``, and
    the next task begins there: the published method knows one task, going on is a use of ours. The average is of the
    prompts alone; the released code averages the whole state. What is learned in one task serves the others, since all
    classes share the prompts.

    Needs task boundaries for the average alone (in an online stream it is the last prompts), a second image pass
    without gradient a step, and the frozen text features of all classes. The module is a
    :class:`~lightning_cl.models.CLIPClassifier`, or any that puts the image features of an open_clip model into a
    ``Linear`` with one output per class. The published setting is SGD at 0.0025, batches of 4, 20 epochs.

    Args:
        num_prompts: Prompt tokens in each layer of each tower, at least 1.
        prompt_depth: Layers with prompts, from the first on; fewer where a tower has fewer.
        text_weight: At least 0; 25 is the paper's.
        image_weight: At least 0; 10 is the paper's.
        logit_weight: At least 0; 1 is the paper's.
        center: Where in a task the epoch is that weighs most in the average, as a share of its epochs, at least 0; the
            paper has 15 of 20.
        spread: Standard deviation of these weights as a share of the epochs, above 0; the paper has 1 of 20.
        words: Whose embeddings the first text prompts of the first layer begin with.
        frozen_templates: Texts of the frozen features; ``None``: open_clip's 80 for ImageNet, of which the paper has
            60.

    Raises:
        ValueError: If a number is out of its range; when attached, for class names that are missing or not different,
            texts and prompts longer than the context, or towers that cannot take prompts.
    """

    state_key: ClassVar[str] = "lightning_cl.PromptSRC"
    small: ClassVar[dict[str, Any]] = {"num_prompts": 2, "frozen_templates": ("a photo of a {}.", "a {}.")}

    num_prompts: int = at_least(1, default=4)
    prompt_depth: int = at_least(1, default=9)
    text_weight: float = at_least(0, default=25.0)
    image_weight: float = at_least(0, default=10.0)
    logit_weight: float = at_least(0, default=1.0)
    center: float = at_least(0, default=0.75)
    spread: float = above(0, default=0.05)
    words: str = "a photo of a"
    frozen_templates: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen_templates is not None:
            fill_templates(["name"], self.frozen_templates)
            self.frozen_templates = list(self.frozen_templates)

    def build(self, pl_module: Any, info: Any) -> RegulatedPrompts:
        """Freeze CLIP; text features answer, under prompts in both towers."""
        _, clip = find_clip(pl_module, self.backbone)
        check_text_tower(clip)
        check_vision_tower(clip.visual)
        names, templates = self.names(info), self.frozen_templates or _imagenet_templates()
        frozen = [fill_templates([name], templates) for name in names]
        texts = fill_templates(names, [self.template])
        return RegulatedPrompts(pl_module, self._prompts(clip), texts, frozen, self)

    def _prompts(self, clip: Any) -> IndependentPrompts:
        """Prompts that fit both towers."""
        layers = [len(tower.transformer.resblocks) for tower in (text_tower(clip), clip.visual)]
        widths = text_tower(clip).token_embedding.weight.shape[1], clip.visual.class_embedding.shape[0]
        return IndependentPrompts(
            self.num_prompts, min(self.prompt_depth, *layers), *widths, word_embeddings(clip, self.words)
        )


def _imagenet_templates() -> list[str]:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
