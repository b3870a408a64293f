"""The base of methods that learn prompts for a frozen CLIP, whose text features of class names answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks.arguments import above
from lightning_cl.callbacks.taskwise import TaskwiseMethod
from lightning_cl.nn.class_texts import class_names as checked_names
from lightning_cl.nn.class_texts import clip_tokens, fill_templates
from lightning_cl.nn.clip_towers import encode_texts, text_tower


@dataclass(eq=False)
class CLIPPromptMethod(TaskwiseMethod):
    """A method that learns prompts for any open_clip model; the head is frozen, and answered in its place.

    Args:
        template: What is read of a class behind the prompts; the name takes the place of ``{}``.
        class_names: One name of each class, in the order of the labels; ``None``: those of the stream.
        logit_scale: Factor of the cosines, above 0; the checkpoint's own is not used.
        backbone: Dotted path of the open_clip model; found when ``None``.
        train_mask: Which classes compete in the training loss; texts of others are not read in a step.

    Raises:
        ValueError: If a number is out of its range or the template has no place for a name.
    """

    adds_loss: ClassVar[bool] = True
    trains_head: ClassVar[bool] = False
    replaces_head: ClassVar[bool] = True
    adapts_backbone: ClassVar[bool] = True
    works_on: ClassVar[str] = "open_clip models"
    family: ClassVar[str] = "clip"

    _: KW_ONLY
    template: str = "{}."
    class_names: Sequence[str] | None = None
    logit_scale: float = above(0, default=100.0)
    backbone: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fill_templates(["name"], [self.template])
        self.class_names = None if self.class_names is None else list(self.class_names)

    def names(self, info: Any) -> tuple[str, ...]:
        """A readable name of each class of a stream."""
        return checked_names(self.class_names or info.class_names, info.num_classes)


@torch.no_grad()
def frozen_features(clip: Any, texts: Sequence[Sequence[str]], unit: bool) -> Tensor:
    """``(C, D)`` features of unit length that CLIP has of each class without prompts: the mean over its texts.

    Args:
        clip: The open_clip model.
        texts: At least one for each class.
        unit: Scale each text's feature to unit length before the mean is taken.
    """
    tower, means = text_tower(clip), []
    device = tower.positional_embedding.device
    for own in texts:
        tokens = clip_tokens(own, tower.context_length).to(device)
        means.append(encode_texts(clip, tokens, unit=unit).mean(dim=0))
    return F.normalize(torch.stack(means), dim=-1)


def word_embeddings(clip: Any, words: str) -> Tensor:
    """``(N, D_text)`` embeddings of the tokens of some words, with which prompts may begin."""
    tower = text_tower(clip)
    tokens = clip_tokens([words], tower.context_length)[0, 1:-1]
    return tower.token_embedding(tokens.to(tower.positional_embedding.device)).detach()  # type: ignore[no-any-return]
