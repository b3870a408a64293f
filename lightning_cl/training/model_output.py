"""Reads the class logits in what a model answers: a tensor, a dictionary or an object with ``logits``, a tuple."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def find_logits(output: Any, columns: int) -> Tensor | None:
    """``(B, C_head)`` logits in what a module's ``forward`` returned; ``None``: there are none.

    Args:
        output: A tensor; a mapping with the key ``logits`` or an object with that attribute (the outputs of Hugging
            Face, of GoogLeNet); or a tuple, of which every matrix of ``columns`` columns is one head's logits: two of
            a distilled model, whose mean is its answer.
        columns: Outputs of the head, ``C_head``.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, (tuple, list)):
        heads = [part for part in found if isinstance(part, Tensor) and part.ndim == 2 and part.shape[1] == columns]
        return torch.stack(heads).mean(0) if len(heads) > 1 else next(iter(heads), None)
    return found if isinstance(found, Tensor) else None


def logits_in(output: Any, columns: int) -> Tensor:
    """The logits that :func:`find_logits` finds.

    Raises:
        ValueError: If there are none.
    """
    found = find_logits(output, columns)
    if found is None:
        keys = f" with the keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
        raise ValueError(
            f"`forward` returned a {type(output).__name__}{keys}, in which no class logits were found; return a tensor "
            f"of {columns} columns, or a dictionary or an object with `logits`."
        )
    return found
