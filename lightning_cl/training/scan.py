"""A search through the batches of a task that goes on where it was interrupted, until a whole pass finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from lightning_cl.nn.counter import Counter

Batch = TypeVar("Batch")


class Scan(nn.Module):
    """Where a search stands: its next batch, and whether this pass has found something; both are saved."""

    def __init__(self) -> None:
        super().__init__()
        self.position, self.found = Counter(), Counter()

    def start(self) -> None:
        """Begin with the first batch of a pass that has found nothing."""
        self.position.set(0)
        self.found.set(0)

    def go_on(self, batches: Callable[[], Iterable[Batch]], find: Callable[[Batch], bool]) -> bool:
        """Whether a batch was found; another call goes on behind it. A pass that found one is followed by another pass.

        Args:
            batches: Makes a pass, in the same order every time.
            find: Whether a batch is what is looked for.
        """
        while True:
            for index, batch in enumerate(batches()):
                if index >= self.position.value and find(batch):
                    self.position.set(index + 1)
                    self.found.set(1)
                    return True
            again = bool(self.found.value)
            self.start()
            if not again:
                return False
