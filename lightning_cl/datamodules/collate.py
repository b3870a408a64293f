"""Make batches of items that do not stack: texts, token sequences of different lengths, images with their boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_cl.sample_list import SampleList

_MASK, _IDS = "attention_mask", "input_ids"
#: What a loss on tokens leaves out (``ignore_index`` of Hugging Face and of PyTorch).
IGNORED = -100
_TOKEN_LABELS = ("labels", "label")


def as_lists(items: list[Any]) -> tuple[list[Any], ...]:
    """Collate tuples into one list for each of their parts, as torchvision's detectors take images and boxes.

    The lists are of a kind by which replay knows that their entries are samples.
    """
    return tuple(SampleList(part) for part in zip(*items, strict=True))


@dataclass(frozen=True)
class PadTokens:
    """Collate dictionaries of token sequences, each padded behind its last token to the longest of the batch.

    ``input_ids`` are filled with ``pad_id``, labels of single tokens with -100 and all else that has a place for each
    token (the mask among it) with 0; whatever has no such place is stacked. An ``attention_mask`` is made where items
    have none.

    Args:
        pad_id: Of the tokenizer, ``tokenizer.pad_token_id``.
    """

    pad_id: int = 0

    def __call__(self, items: list[Mapping[str, Any]]) -> dict[str, Any]:
        """The batch of a list of items, whose ``input_ids`` are tensors, arrays or lists of integers."""
        lengths = [len(item[_IDS]) for item in items]
        masked = [{_MASK: torch.ones(n, dtype=torch.long), **item} for n, item in zip(lengths, items, strict=True)]
        return {name: self._column(name, [item[name] for item in masked], lengths) for name in masked[0]}

    def _column(self, name: str, parts: list[Any], lengths: list[int]) -> Any:
        if any(_length(part) != n for part, n in zip(parts, lengths, strict=True)):
            return default_collate(parts)
        fill = self.pad_id if name == _IDS else IGNORED if name in _TOKEN_LABELS else 0
        return torch.nn.utils.rnn.pad_sequence(
            [torch.as_tensor(part) for part in parts], batch_first=True, padding_value=fill
        )


def _length(part: Any) -> int | None:
    return None if isinstance(part, str) or getattr(part, "ndim", 1) == 0 or not hasattr(part, "__len__") else len(part)


@dataclass(frozen=True)
class Tokenized:
    """Collate dictionaries with a ``text`` by a tokenizer of Hugging Face, padded to the longest of the batch.

    Args:
        tokenizer: Called as ``tokenizer(texts, padding=True, return_tensors="pt", ...)``.
        max_length: Longer texts are cut to so many tokens; ``None``: not cut.
        targets: ``"class"``: ``labels`` are the items' classes; ``"tokens"``: they are the token ids, -100 where there
            is padding, for a language model.
    """

    tokenizer: Any
    max_length: int | None = None
    targets: Literal["class", "tokens"] = "class"

    def __call__(self, items: list[Mapping[str, Any]]) -> dict[str, Any]:
        """What the tokenizer gives, with ``labels`` and whatever else the items hold.

        Raises:
            ValueError: If texts were padded and there is no attention mask that says where.
        """
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        made = self.tokenizer([item["text"] for item in items], padding=True, return_tensors="pt", **cut)
        batch: dict[str, Any] = dict(made)
        self._check_mask(batch)
        others = {name: default_collate([item[name] for item in items]) for name in items[0] if name != "text"}
        if self.targets == "tokens":
            ids, mask = batch[_IDS], batch.get(_MASK)
            batch["labels"] = ids.clone() if mask is None else ids.masked_fill(mask == 0, IGNORED)
            others.pop("label", None)
        return batch | {"labels" if name == "label" else name: part for name, part in others.items()}

    def _check_mask(self, batch: Mapping[str, Any]) -> None:
        pad, ids = getattr(self.tokenizer, "pad_token_id", None), batch[_IDS]
        if _MASK not in batch and pad is not None and bool((ids == pad).any()):
            raise ValueError(
                f"{type(self.tokenizer).__name__} padded a batch of texts to {ids.shape[1]} tokens but gave no "
                f"attention mask (its keys are {', '.join(batch)}), so padding would be read as text; let it return "
                "one (`return_attention_mask=True`, and `attention_mask` among its `model_input_names`)."
            )


def stacked(items: list[Any], split: str) -> Any:
    """PyTorch's ``default_collate``, with a plain word on samples of different sizes.

    Args:
        items: Of one batch.
        split: Where they are from, for the message.

    Raises:
        ValueError: If a part has not the same size in all of them.
    """
    try:
        return default_collate(items)
    except RuntimeError as error:
        found = next(_different(items), None)
        if found is None:
            raise
        where, sizes = found
        raise ValueError(
            f"samples of the {split} split have different sizes: {where} is {sizes[0]} in one and {sizes[1]} in "
            "another, so they do not stack into a batch; let a transform give all one size, or pass a `collate_fn` to "
            "the source or to ContinualDataModule (`PadTokens()` pads token ids, `as_lists` keeps lists)."
        ) from error


def _different(parts: list[Any], where: str = "the item") -> Iterator[tuple[str, list[Any]]]:
    """Names and two sizes of the parts that differ between items, from the outside to the inside."""
    first = parts[0]
    if isinstance(first, Mapping):
        for key in first:
            yield from _different([part[key] for part in parts], f"`{key}`")
    elif isinstance(first, (tuple, list)):
        lengths = sorted({len(part) for part in parts})
        if len(lengths) > 1:
            yield where, [f"a list of {n}" for n in lengths[:2]]
        for number in range(len(first) if len(lengths) == 1 else 0):
            yield from _different([part[number] for part in parts], f"part {number}")
    elif isinstance(first, Tensor) or hasattr(first, "shape"):
        shapes = sorted({tuple(part.shape) for part in parts})
        if len(shapes) > 1:
            yield where, list(shapes[:2])
