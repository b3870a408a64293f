"""The base of sources whose images come from another source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_cl.datamodules.sources.base import Source


class DerivedSource(Source):
    """Downloads, and transforms images, as the source that they come from.

    Attributes:
        source: That source.
    """

    source: Source

    def prepare(self) -> None:
        """Download the source."""
        self.source.prepare()

    def train_transform(self) -> Callable[[Any], Any] | None:
        """The source's."""
        return self.source.train_transform()

    def eval_transform(self) -> Callable[[Any], Any] | None:
        """The source's."""
        return self.source.eval_transform()
