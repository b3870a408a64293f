"""A list with one entry for each sample of a batch, where the samples do not stack."""

from __future__ import annotations

from typing import Any


class SampleList(list[Any]):
    """A plain list that says of itself that its entries are samples (images of any size, dictionaries of boxes)."""
