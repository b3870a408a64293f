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
    """
    masks = [batch.get(_MASK) if isinstance(batch, Mapping) else None for batch in (first, second)]
    if any(not isinstance(mask, Tensor) or mask.ndim != 2 for mask in masks):
        return first, second
    one, other = (mask.shape[1] for mask in masks)  # type: ignore[union-attr]
    if one == other:
        return first, second
    left = torch.stack([(mask[:, 0] == 0).any().to(masks[0].device) for mask in masks]).any()  # type: ignore[union-attr,index]
    ids = [_padding_id(batch, masks[0].device) for batch in (first, second)]  # type: ignore[union-attr]
    fill = torch.stack(ids).amax()
    if one < other:
        return _padded(first, one, other, left, fill), second
    return first, _padded(second, other, one, left, fill)


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
