"""Reads inputs and targets from whatever a batch is: tuple, list or dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

INPUT_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs")
TARGET_KEYS = ("label", "labels", "target", "targets", "y")


def unpack(batch: Any) -> tuple[Any, Tensor]:
    """Inputs and integer targets of a batch.

    Args:
        batch: ``(inputs, targets, ...)`` as tuple or list, or a mapping with one of the usual keys.

    Raises:
        ValueError: If there is no target; the message says what was found.
    """
    if isinstance(batch, Mapping):
        inputs = next((batch[k] for k in INPUT_KEYS if k in batch), None)
        targets = next((batch[k] for k in TARGET_KEYS if k in batch), None)
        if inputs is None or targets is None:
            missing, keys = ("inputs", INPUT_KEYS) if inputs is None else ("targets", TARGET_KEYS)
            raise ValueError(
                f"the batch has the keys {sorted(map(str, batch))}, but no {missing} among them "
                f"(looked for {', '.join(keys)}); rename the key, e.g. with `ContinualDataModule(batch_keys=...)`."
            )
        return inputs, targets
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise ValueError(
        f"the batch is a {type(batch).__name__}{size} without a target; give (inputs, targets) or a dictionary with "
        f"one of the keys {', '.join(TARGET_KEYS)}."
    )
