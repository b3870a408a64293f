"""Batches of token sequences of different lengths, as a collate function pads each of them to its own longest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_MASK, _IDS = "attention_mask", "input_ids"
#: What has a place for each token, with what stands behind the last one; the ids' own padding is looked up.
_FILLS = {_IDS: 0, _MASK: 0, "inputs_embeds": 0, "token_type_ids": 0, "position_ids": 0}
#: Labels of single tokens; Hugging Face's losses leave this one out.
_LABELS, _IGNORED = ("labels", "label"), -100


def padded_alike(first: Any, second: Any) -> tuple[Any, Any]:
    """Two batches with an ``attention_mask``, the shorter sequences padded to the length of the others.

    Padding goes to the side where it is already (behind the tokens, where there is none), and has the id that it has
    already (0, where there is none): the mask hides it. Looks at no value, so nothing waits for the device.

    Args:
        first: A batch; anything but a dictionary with ``(B, L)`` masks is left as it is.
        second: Another one.

    Raises:
        ValueError: If their token ids differ in length and a batch has no mask to say which of them are padding.
    """
    one, other = _length(first), _length(second)
    if one is None or other is None:
        _refuse_without_mask(first, second)
        return first, second
    if one == other:
        return first, second
    facts = [padding(batch) for batch in (first, second)]
    device = facts[0].device
    left, fill = torch.stack([fact.to(device) for fact in facts]).amax(0)
    left = left > 0
    if one < other:
        return _padded(first, one, other, left, fill), second
    return first, _padded(second, other, one, left, fill)


def padded_over_processes(batch: Any) -> Any:
    """A batch with an ``attention_mask``, padded to the longest that a process has; others as they are."""
    length = _length(batch)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if length is None or not distributed or torch.distributed.get_world_size() == 1:
        return batch
    facts = padding(batch)
    facts = torch.cat([facts.new_tensor([length]), facts])
    torch.distributed.all_reduce(facts, torch.distributed.ReduceOp.MAX)
    wanted = int(facts[0])
    return batch if wanted == length else _padded(batch, length, wanted, facts[1] > 0, facts[2])


def padding(batch: Mapping[str, Any]) -> Tensor:
    """``(2,)`` int64: whether a batch is padded on the left, and the id that stands there.

    Rows without a token, as the empty slots of a memory are, say nothing.
    """
    mask = batch[_MASK] != 0
    left = (~mask[:, 0] & mask.any(dim=1)).any()
    return torch.stack([left.long(), _padding_id(batch, mask.device)])


def _length(batch: Any) -> int | None:
    """Places of the tokens in a batch with a ``(B, L)`` mask; ``None``: it has none."""
    mask = batch.get(_MASK) if isinstance(batch, Mapping) else None
    return mask.shape[1] if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _refuse_without_mask(first: Any, second: Any) -> None:
    ids = [batch.get(_IDS) if isinstance(batch, Mapping) else None for batch in (first, second)]
    if any(not isinstance(part, Tensor) or part.ndim != 2 for part in ids):
        return
    one, other = (part.shape[1] for part in ids)  # type: ignore[union-attr]
    if one != other:
        raise ValueError(
            f"a batch of {one} token ids a sample and one of {other} are to be joined, but there is no "
            "`attention_mask` beside `input_ids` that would tell padding from text; let the tokenizer return one "
            "(`return_attention_mask=True`), or collate with `PadTokens`."
        )


def _padding_id(batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """The id at masked places, as a scalar; 0: there are none."""
    ids, mask = batch.get(_IDS), batch[_MASK]
    if not isinstance(ids, Tensor) or not ids.numel():
        return torch.zeros((), dtype=torch.long, device=device)
    return ids.masked_fill(mask != 0, 0).amax().long().to(device)


def _padded(batch: Mapping[str, Any], length: int, wanted: int, left: Tensor, fill: Tensor) -> Any:
    def longer(name: str, part: Any) -> Any:
        if not isinstance(part, Tensor) or part.ndim < 2 or part.shape[1] != length:
            return part
        if name not in _FILLS and not (name in _LABELS and not part.is_floating_point()):
            return part
        value = fill.to(part) if name == _IDS else part.new_tensor(_FILLS.get(name, _IGNORED))
        block = value.expand(len(part), wanted - length, *part.shape[2:])
        side = left.to(part.device)
        return torch.where(side, torch.cat([block, part], dim=1), torch.cat([part, block], dim=1))

    made = {name: longer(name, part) for name, part in batch.items()}
    return made if type(batch) is dict else type(batch)(made)  # type: ignore[call-arg]
