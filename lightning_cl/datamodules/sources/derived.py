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

    def _opened(self) -> Source:
        """Open the source, and take over the form of its images and batches."""
        source = self.source
        source.setup()
        self.mean, self.std, self.image_size = source.mean, source.std, source.image_size
        self.collate_fn, self.batch_hooks = source.collate_fn, dict(source.batch_hooks)
        return source

    def _opened_for_copies(self) -> Source:
        """As :meth:`_opened`, for a source whose copies are to be domains.

        Raises:
            ValueError: If it has domains of its own.
        """
        source = self._opened()
        if source.train_domains is not None:
            raise ValueError(
                f"{type(source).__name__} has domains of its own ({', '.join(source.domain_names or ())[:60]}), so its "
                "copies cannot be further ones; give a source without domains."
            )
        return source
