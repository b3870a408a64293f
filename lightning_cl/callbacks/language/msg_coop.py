"""MSGCoOp: several contexts in front of each class name, unlike each other and near to descriptions of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.language.clip_method import CLIPPromptMethod, frozen_features, word_embeddings
from lightning_cl.callbacks.language.text_features import TextFeatures
from lightning_cl.nn.class_texts import fill_templates, readable
from lightning_cl.nn.clip_prompts import ContextSets
from lightning_cl.nn.clip_towers import check_text_tower, encode_texts, text_tower
from lightning_cl.nn.prompt_terms import anchor_distance, prompt_diversity
from lightning_cl.training import Step
from lightning_cl.training.find_backbone import find_clip


class ContextEnsemble(TextFeatures):
    """The mean of the answers of several contexts, and the terms that hold these near descriptions and apart.

    Args:
        descriptions: For each class what describes it.
    """

    def __init__(
        self,
        module: Any,
        contexts: ContextSets,
        texts: Sequence[str],
        descriptions: Sequence[Sequence[str]],
        method: MSGCoOp,
    ) -> None:
        super().__init__(module, contexts, texts, method.backbone, method.logit_scale)
        self.method, self.descriptions = method, descriptions
        self.anchors = torch.empty(0)  # (C, D), read when a fit begins, once the weights of CLIP are those of the run

    def start_run(self, module: Any) -> None:
        """Read the descriptions."""
        super().start_run(module)
        self.anchors = frozen_features(self.texts.clip, self.descriptions, unit=True)

    def _each(self, tokens: Tensor) -> Tensor:
        """``(M, C, D)`` text features behind each context."""
        tokens = tokens.to(self.prompts.language.device)
        contexts = self.prompts.language[:, None]  # (M, 1, K, D_text): prompts of one layer each
        return torch.stack([encode_texts(self.texts.clip, tokens, context, unit=False) for context in contexts])

    def _read(self, tokens: Tensor) -> Tensor:
        return F.normalize(self._each(tokens), dim=-1).mean(dim=0)

    def _trained_features(self, module: Any) -> tuple[Tensor, Tensor]:
        columns, each = self._once_a_step(module, self._each)
        return columns, F.normalize(each, dim=-1).mean(dim=0)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """``anchor_weight * (1 - cos) + diversity_weight * mean cos^2`` over the classes that compete."""
        columns, each = self._once_a_step(step.module, self._each)
        anchors = self.anchors[columns].to(each.dtype)
        return {
            "msg_coop_anchor": self.method.anchor_weight * anchor_distance(each, anchors),
            "msg_coop_diversity": self.method.diversity_weight * prompt_diversity(each),
        }


@dataclass(eq=False)
class MSGCoOp(CLIPPromptMethod):
    """Several contexts guided by descriptions (MSGCoOp; arXiv:2507.21786, 2025), on any open_clip model.

    CLIP is frozen. ``M`` learned contexts, each of some prompt tokens, stand in front of every class name; an image is
    answered by the mean of ``logit_scale * cos`` over them. To the module's cross-entropy come ``anchor_weight * (1 -
    cos)`` between the mean of a class's text features and that of texts that describe it, and ``diversity_weight``
    times the mean squared cosine between the contexts' features of a class. The published method knows one task; here
    all tasks share the contexts. Every context begins with the words' embeddings and noise: equal ones would stay
    equal.

    Needs no task boundaries and no sample kept; each step reads the texts of the competing classes ``M`` times. The
    module is a :class:`~lightning_cl.models.CLIPClassifier`, or any that puts the image features of an open_clip model
    into a ``Linear`` with one output per class; the image tower may be of any kind.

    Args:
        contexts: ``M``, at least 1.
        num_prompts: Prompt tokens of each context, at least 1.
        anchor_weight: At least 0; the default is of our own.
        diversity_weight: At least 0; the default is of our own.
        descriptions: For class names texts that describe them, without a place for the name; the paper has four a
            class, written by a language model: ``{"zebra": ["a photo of a zebra, a horse with stripes"]}``. A class
            without has ``"a photo of a <name>."``.
        words: Whose embeddings every context begins with.

    Raises:
        ValueError: If a number is out of its range; when attached, for class names that are missing or not different,
            descriptions of a class that the stream has not, texts and prompts longer than the context, or a text tower
            that cannot take prompts.
    """

    state_key: ClassVar[str] = "lightning_cl.MSGCoOp"
    needs_forward: ClassVar[bool] = False
    small: ClassVar[dict[str, Any]] = {"contexts": 2, "num_prompts": 2}

    contexts: int = at_least(1, default=4)
    num_prompts: int = at_least(1, default=4)
    anchor_weight: float = at_least(0, default=1.0)
    diversity_weight: float = at_least(0, default=1.0)
    descriptions: Mapping[str, Sequence[str]] | None = None
    words: str = "a photo of a"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.descriptions is not None:
            self.descriptions = {name: list(texts) for name, texts in self.descriptions.items()}

    def build(self, pl_module: Any, info: Any) -> ContextEnsemble:
        """Freeze CLIP; the mean of text features behind the contexts answers."""
        _, clip = find_clip(pl_module, self.backbone)
        check_text_tower(clip)
        names = self.names(info)
        width = text_tower(clip).token_embedding.weight.shape[1]
        contexts = ContextSets(self.contexts, self.num_prompts, width, word_embeddings(clip, self.words))
        texts = fill_templates(names, [self.template])
        return ContextEnsemble(pl_module, contexts, texts, self._described(names), self)

    def _described(self, names: Sequence[str]) -> list[list[str]]:
        """Texts that describe each class."""
        given = {readable(name): list(texts) for name, texts in (self.descriptions or {}).items()}
        unknown = sorted(name for name, texts in given.items() if name not in names or not texts)
        if unknown:
            raise ValueError(
                f"`descriptions` has {unknown}, which are no classes of the stream or have no text; describe classes "
                f"by their names, such as {names[0]!r}, with at least one text each."
            )
        return [given.get(name, [f"a photo of a {name}."]) for name in names]
