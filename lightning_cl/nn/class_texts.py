"""Class names as text: templates, tokens of CLIP's own tokenizer, and a head whose rows are text features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.precision import wide


def readable(name: str) -> str:
    """Write a class name in words: ``"aquarium_fish"`` is ``"aquarium fish"``."""
    return " ".join(str(name).replace("_", " ").split())


def class_names(names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Readable names, one of each class.

    Raises:
        ValueError: If there are fewer or more than ``num_classes``, one is empty, or two are the same text, which
            would make two classifiers that are equal.
    """
    known = tuple(readable(name) for name in names)
    if len(known) != num_classes:
        raise ValueError(
            f"there are {len(known)} class names for {num_classes} classes; give one name of each class, in the order "
            "of the labels."
        )
    empty = [label for label, name in enumerate(known) if not name]
    if empty:
        raise ValueError(f"the classes {empty} have no name, but their text is the classifier; name every class.")
    labels: dict[str, list[int]] = {}
    for label, name in enumerate(known):
        labels.setdefault(name.lower(), []).append(label)  # CLIP's tokenizer does not tell upper from lower case
    same = {name: group for name, group in labels.items() if len(group) > 1}
    if same:
        raise ValueError(
            f"some classes have the same name, so their classifiers would be equal: {same}; give each its own name "
            '(for example "crane bird" and "crane machine") with `class_names=[...]`.'
        )
    return known


def fill_templates(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """For each name all templates with the name in them, one class after the other.

    Raises:
        ValueError: If there is no template, or one has not exactly one ``{}``.
    """
    if isinstance(templates, str):
        raise ValueError(f"`templates` is the text {templates!r}; give a list of templates.")
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(
            f"the templates {list(wrong or templates)} have no place for the class name, or several; write {{}} once "
            'in each, as in "a photo of a {}."'
        )
    return [template.replace("{}", name) for name in names for template in templates]


@cache
def clip_tokenizer() -> Any:
    """The tokenizer of CLIP; its vocabulary is part of open_clip, so no network is needed."""
    import open_clip

    return open_clip.SimpleTokenizer()


def clip_tokens(texts: Sequence[str], context_length: int, prompts: int = 0) -> Tensor:
    """``(T, N)`` int64 tokens ``[start, words, end, 0, ...]``, trimmed to the longest text.

    Args:
        texts: What to read.
        context_length: Positions that the text tower has.
        prompts: How many of them prompts take.

    Raises:
        ValueError: If a text and the prompts are longer than the context.
    """
    tokenizer = clip_tokenizer()
    words = [tokenizer.encode(text) for text in texts]
    longest = max(range(len(words)), key=lambda i: len(words[i]))
    length = len(words[longest]) + 2
    if length + prompts > context_length:
        raise ValueError(
            f"the text {texts[longest]!r} has {length} tokens and {prompts} prompts come in front of it, but the text "
            f"tower reads at most {context_length}; use a shorter name or template, or fewer prompts."
        )
    tokens = torch.zeros(len(words), length, dtype=torch.long)
    for row, known in zip(tokens, words, strict=True):
        row[: len(known) + 2] = torch.tensor([tokenizer.sot_token_id, *known, tokenizer.eot_token_id])
    return tokens


def trimmed(tokens: Tensor) -> Tensor:
    """``(T, N)`` tokens without the columns behind every end token."""
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


def ensemble(features: Tensor, templates: int) -> Tensor:
    """``(C * T, D)`` unit features, the templates of a class together, to ``(C, D)``: their mean, at unit length."""
    if templates == 1:
        return features
    return F.normalize(features.unflatten(0, (-1, templates)).mean(dim=1), dim=-1)


def text_logits(features: Tensor, rows: Tensor, scale: Tensor | float) -> Tensor:
    """``(B, D)`` features and ``(C, D)`` unit rows to ``(B, C)`` logits ``scale * cos``, in at least 32 bits."""
    with torch.autocast(features.device.type, enabled=False):
        features = wide(features)
        return scale * F.normalize(features, dim=1) @ rows.to(features.dtype).T


class TextHead(nn.Linear):
    """A cosine head whose rows are text features; a ``Linear``, so that a head's class masks and readers find it.

    The rows are neither parameters nor saved: they follow from the text tower and the class names.

    Args:
        width: Feature size, ``D``.
        num_classes: Rows, ``C``.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes, bias=False)
        del self.weight
        self.register_buffer("weight", torch.zeros(num_classes, width), persistent=False)
        #: What the rows were made from; ``None``: not yet.
        self.made_from: object = None
        #: A method answers in this head's place, so its own rows are not needed.
        self.replaced = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy fills itself: its tower's weights count their writes anew."""
        return {**self.__dict__, "made_from": None}

    @torch.no_grad()
    def fill(self, rows: Tensor, made_from: object) -> None:
        """Set the ``(C, D)`` rows."""
        self.weight.copy_(rows)
        self.made_from = made_from

    def forward(self, features: Tensor, rows: Tensor | None = None, scale: Tensor | float = 100.0) -> Tensor:
        """``(B, D)`` features to ``(B, C)`` logits; ``rows`` instead of its own while the text tower is trained."""
        return text_logits(features, self.weight if rows is None else rows, scale)
