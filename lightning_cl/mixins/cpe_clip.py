"""CPE-CLIP in a live module: prompts in both towers of an open_clip model, and text features as the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_cl.mixins.base import ContinualMixin, expect_eval_mode
from lightning_cl.mixins.extending import extend
from lightning_cl.mixins.finding import find_clip
from lightning_cl.nn.class_texts import TextHead, clip_tokens, text_logits, trimmed
from lightning_cl.nn.clip_prompts import CLIPPrompts, FrozenCLIP, PromptedVision
from lightning_cl.nn.clip_towers import NOT_TEXT, check_text_tower, check_vision_tower, encode_texts, text_tower
from lightning_cl.nn.parameter_versions import parameter_versions

if TYPE_CHECKING:
    from lightning_cl.datamodules.task import Task


@dataclass
class ClassTexts:
    """What is read of the classes, and what came of it last.

    Attributes:
        clip: The open_clip model.
        tokens: ``(C, N)`` on the CPU.
        scale: Of the logits.
        chosen: The classes that compete in training with their tokens, and for which state of the class mask.
        known: Features of all classes without gradient, and of which weights.
        step: In a training step, the features of the classes that compete, with gradient.
    """

    clip: Any
    tokens: Tensor
    scale: float
    chosen: tuple[object, Tensor, Tensor] | None = None
    known: tuple[object, Tensor] | None = None
    step: tuple[Tensor, Tensor] | None = None
    in_step: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy remembers nothing: its weights count their writes anew."""
        return {**self.__dict__, "chosen": None, "known": None, "step": None, "in_step": False}


class CPECLIPMixin(ContinualMixin):
    """Answers with the cosine of image and text features, both under prompts.

    ``configure_continual`` comes first, then :meth:`add_clip_prompts`. The head's input must be the image features of
    the open_clip model (``encode_image``, or what its ``visual`` gives), of any length.
    """

    prompts: CLIPPrompts

    def add_clip_prompts(
        self, prompts: CLIPPrompts, texts: Sequence[str], backbone: str | None = None, logit_scale: float = 100.0
    ) -> None:
        """Freeze the open_clip model and the head, and let ``prompts`` into the layers.

        Args:
            prompts: Registered as the submodule ``prompts``, so optimised, saved and reduced with the module.
            texts: What is read of each class, in the order of the labels.
            backbone: Dotted path of the open_clip model; found when ``None``.
            logit_scale: Factor of the cosines.

        Raises:
            ValueError: If there is no (single) model, it has prompts already or cannot take them, or the head does not
                read its features.
        """
        path, clip = find_clip(self, backbone)
        if isinstance(clip, FrozenCLIP) or hasattr(self, "prompts"):
            raise ValueError(
                "the module has prompts already (or an attribute `prompts`); use one prompt method at a time."
            )
        check_text_tower(clip)
        if prompts.projection is not None:
            check_vision_tower(clip.visual)
        width, head = feature_width(clip), self.continual_head
        if head.in_features != width:
            raise ValueError(
                f"the head `{self.continual.head_path}` reads {head.in_features} features, but `{path}` gives {width}; "
                'name the layer behind the image features with `head="..."`.'
            )
        tokens = clip_tokens(texts, text_tower(clip).context_length, prompts.language.shape[1])
        extend(clip, FrozenCLIP)
        clip.requires_grad_(False).eval()
        head.requires_grad_(False)
        if isinstance(head, TextHead):
            head.replaced = True
        reference = next(clip.parameters())
        self.prompts = prompts.to(device=reference.device, dtype=reference.dtype)
        if prompts.projection is not None:
            visual: Any = clip.visual
            extend(visual, PromptedVision)
            visual.__dict__["_prompts"] = self.prompts
        self.__dict__["_texts"] = ClassTexts(clip, tokens, logit_scale)
        # Before the class mask, which was put on the head first, so that it masks the new logits.
        head.register_forward_hook(self._compare, prepend=True)
        expect_eval_mode()

    # ------------------------------------------------------------------ text features

    def class_features(self, columns: Tensor | None = None) -> Tensor:
        """``(C, D)`` text features of unit length under the current prompts, of all classes or of some.

        Args:
            columns: ``(C,)`` class ids.
        """
        texts: ClassTexts = self.__dict__["_texts"]
        return self._read(texts.tokens if columns is None else trimmed(texts.tokens[columns.cpu()]))

    def _read(self, tokens: Tensor) -> Tensor:
        texts: ClassTexts = self.__dict__["_texts"]
        device = self.prompts.language.device
        return encode_texts(texts.clip, tokens.to(device), self.prompts.language, self.prompts.text_mode)

    def _competing(self) -> tuple[Tensor, Tensor]:
        """Ids and tokens of the classes that compete in training; looked up anew when the class mask was written."""
        texts: ClassTexts = self.__dict__["_texts"]
        allowed = self.continual.mask.train_allowed
        state = (id(allowed), allowed._version, allowed.device)
        if texts.chosen is None or texts.chosen[0] != state:
            columns = allowed[: len(texts.tokens)].nonzero().flatten()
            texts.chosen = (state, columns, trimmed(texts.tokens[columns.cpu()]).to(allowed.device))
        return texts.chosen[1:]

    def _trained_features(self) -> tuple[Tensor, Tensor]:
        """Features with gradient of the classes that compete, and their ids; once a step, however many passes."""
        texts: ClassTexts = self.__dict__["_texts"]
        if texts.step is not None:
            return texts.step
        columns, tokens = self._competing()
        found = columns, self._read(tokens)
        if texts.in_step:
            texts.step = found
        return found

    def _known_features(self) -> Tensor:
        """Features of all classes without gradient; read again when a weight was written."""
        texts: ClassTexts = self.__dict__["_texts"]
        if torch.compiler.is_compiling():  # a graph holds the text tower, not what it said
            return self.class_features()
        device = self.prompts.language.device.type
        casts = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        now = (casts, parameter_versions(self.prompts), parameter_versions(text_tower(texts.clip), but=NOT_TEXT))
        if texts.known is None or texts.known[0] != now:
            with torch.inference_mode(False), torch.no_grad():
                texts.known = now, self.class_features()
        return texts.known[1]

    # ------------------------------------------------------------------ the head

    def _compare(self, head: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        texts: ClassTexts = self.__dict__["_texts"]
        features, count = args[0].flatten(1), output.shape[1]
        if torch.is_grad_enabled() and self.training:
            columns, rows = self._trained_features()
            logits = text_logits(features, rows, texts.scale)
            if len(columns) == count:
                return logits
            return logits.new_full((logits.shape[0], count), -torch.inf).index_copy(1, columns, logits)
        rows = self.class_features() if torch.is_grad_enabled() else self._known_features()
        logits = text_logits(features, rows, texts.scale)
        missing = count - logits.shape[1]
        return nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits

    # ------------------------------------------------------------------ steps and tasks

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The user's step, its loss times the task's share; what the user logs is the loss as it is.

        It is the official scaling of the gradients, but weight decay, clipping and 16-bit scaling see what they should.
        """
        texts: ClassTexts = self.__dict__["_texts"]
        texts.step, texts.in_step = None, True
        try:
            output = super().training_step(*args, **kwargs)
        finally:
            texts.step, texts.in_step = None, False
        share = self.prompts.share
        if output is None or share == 1:
            return output
        if isinstance(output, dict):
            return {**output, "loss": output["loss"] * share}
        return output * share

    def on_task_start(self, task: Task) -> None:
        """Let the share follow the task."""
        self.prompts.start_task(task.index)
        super().on_task_start(task)

    def protected_rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """None: the head is not trained, and prompts belong to all classes."""
        yield from ()


def feature_width(clip: Any) -> int:
    """Size of the features that both towers give."""
    projection = text_tower(clip).text_projection
    if projection is None:
        return int(text_tower(clip).ln_final.weight.shape[0])
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])
