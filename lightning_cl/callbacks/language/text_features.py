"""CPE-CLIP's module: prompts in both towers of an open_clip model, and text features in the head's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_cl.mixins.base import expect_eval_mode
from lightning_cl.nn.class_texts import TextHead, clip_tokens, text_logits, trimmed
from lightning_cl.nn.clip_prompts import CLIPPrompts, FrozenCLIP, PromptedVision
from lightning_cl.nn.clip_towers import NOT_TEXT, encode_texts, feature_width, text_tower
from lightning_cl.nn.extension import extend
from lightning_cl.nn.parameter_versions import Remembered, parameter_versions, written
from lightning_cl.nn.prompts import PromptProvider
from lightning_cl.training import MethodModule
from lightning_cl.training.find_backbone import find_clip


@dataclass
class ClassTexts:
    """What is read of the classes, and what came of it last.

    Attributes:
        clip: The open_clip model.
        tokens: ``(C, N)`` on the CPU.
        scale: Of the logits.
        chosen: The classes that compete in training with their tokens.
        known: Features of all classes without gradient.
    """

    clip: Any
    tokens: Tensor
    scale: float
    chosen: Remembered[tuple[Tensor, Tensor]] = field(default_factory=Remembered)
    known: Remembered[Tensor] = field(default_factory=Remembered)


class TextFeatures(MethodModule):
    """Answers with the cosine of image and text features, both under prompts; CLIP and the head are frozen.

    The head's input must be the image features of the open_clip model (``encode_image``, or what its ``visual``
    gives), of any length.

    Args:
        module: The LightningModule.
        prompts: Fit both towers.
        texts: What is read of each class, in the order of the labels.
        backbone: Dotted path of the open_clip model; found when ``None``.
        logit_scale: Factor of the cosines.

    Raises:
        ValueError: If there is no (single) model, it has prompts already, or the head does not read its features.
    """

    makes_logits = True
    former_keys: ClassVar[dict[str, str]] = {"prompts.": "prompts."}
    known_as: ClassVar[dict[str, str]] = {"prompts": "prompts"}

    def __init__(
        self, module: Any, prompts: CLIPPrompts, texts: Sequence[str], backbone: str | None, logit_scale: float
    ) -> None:
        super().__init__()
        path, clip = find_clip(module, backbone)
        head = module.continual_head
        if isinstance(clip, FrozenCLIP) or any(isinstance(part, PromptProvider) for part in module.modules()):
            raise ValueError("the module has prompts already; use one prompt method at a time.")
        if head.in_features != feature_width(clip):
            raise ValueError(
                f"the head `{module.continual.head_path}` reads {head.in_features} features, but `{path}` gives "
                f'{feature_width(clip)}; name the layer behind the image features with `head="..."`.'
            )
        tokens = clip_tokens(texts, text_tower(clip).context_length, prompts.language.shape[1])
        self.prompts = prompts.to(next(clip.parameters()))
        self.texts = ClassTexts(clip, tokens, logit_scale)
        head.requires_grad_(False)
        if isinstance(head, TextHead):
            head.replaced = True
        self._freeze(clip)

    def _freeze(self, clip: Any) -> None:
        """Freeze the towers and let the prompts into the image tower."""
        extend(clip, FrozenCLIP)
        clip.requires_grad_(False).eval()
        if self.prompts.vision() is not None:
            extend(clip.visual, PromptedVision)
            clip.visual.__dict__["_prompts"] = self.prompts
        expect_eval_mode()

    # ------------------------------------------------------------------ text features

    def class_features(self, columns: Tensor | None = None) -> Tensor:
        """``(C, D)`` text features of unit length under the current prompts, of all classes or of some.

        Args:
            columns: ``(C,)`` class ids.
        """
        tokens = self.texts.tokens
        return self._read(tokens if columns is None else trimmed(tokens[columns.cpu()]))

    def features_of(self, texts: Sequence[str]) -> Tensor:
        """``(T, D)`` features of any texts under the current prompts, as those of the classes are read."""
        tower, taken = text_tower(self.texts.clip), self.prompts.language.shape[1]
        return self._read(clip_tokens(texts, tower.context_length, taken).to(self.prompts.language.device))

    def _read(self, tokens: Tensor) -> Tensor:
        language = self.prompts.language
        return encode_texts(self.texts.clip, tokens.to(language.device), language, self.prompts.text_mode)

    def _competing(self, module: Any) -> tuple[Tensor, Tensor]:
        """Ids and tokens of the classes that compete in training; looked up anew when the class mask was written."""
        tokens, allowed = self.texts.tokens, module.continual.mask.train_allowed

        def look_up() -> tuple[Tensor, Tensor]:
            columns = allowed[: len(tokens)].nonzero().flatten()
            return columns, trimmed(tokens[columns.cpu()]).to(allowed.device)

        return self.texts.chosen.get(written(allowed), look_up)

    def _trained_features(self, module: Any) -> tuple[Tensor, Tensor]:
        """Ids of the classes that compete and their features with gradient."""
        return self._once_a_step(module, self._read)

    def _once_a_step(self, module: Any, read: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Ids of the classes that compete and what is read of them; once a step, however many passes."""
        step = module.continual.step
        memo = {} if step is None else step.memo
        if self not in memo:
            columns, tokens = self._competing(module)
            memo[self] = columns, read(tokens)
        found: tuple[Tensor, Tensor] = memo[self]
        return found

    def _known_features(self) -> Tensor:
        """Features of all classes without gradient; read again when a weight was written."""
        if torch.compiler.is_compiling():  # a graph holds the text tower, not what it said
            return self.class_features()
        texts, device = self.texts, self.prompts.language.device.type
        casts = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        now = (casts, parameter_versions(self.prompts), parameter_versions(text_tower(texts.clip), but=NOT_TEXT))
        with torch.inference_mode(False), torch.no_grad():
            return texts.known.get(now, self.class_features)

    # ------------------------------------------------------------------ the head, steps and tasks

    def answer(self, module: Any, features: Tensor, logits: Tensor) -> Tensor:
        """``(B, C)`` cosines times the scale; in training -inf for classes that do not compete."""
        if module.continual.raw:  # a look at features alone, in which no text needs to be read
            return logits
        if torch.is_grad_enabled() and module.training:
            columns, rows = self._trained_features(module)
            found = text_logits(features, rows, self.texts.scale)
            if len(columns) == logits.shape[1]:
                return found
            return found.new_full((len(found), logits.shape[1]), -torch.inf).index_copy(1, columns, found)
        rows = self.class_features() if torch.is_grad_enabled() else self._known_features()
        return text_logits(features, rows, self.texts.scale)

    def start_run(self, module: Any) -> None:
        """Multiply the loss by the share of the task; what the user logs is the loss as it is.

        It is the official scaling of the gradients, but weight decay, clipping and 16-bit scaling see what they should.
        """
        self.loss_factor = self.prompts.share

    def start_task(self, module: Any, task: Any) -> None:
        """Let the share follow the task."""
        self.prompts.start_task(task.index)
        self.loss_factor = self.prompts.share
