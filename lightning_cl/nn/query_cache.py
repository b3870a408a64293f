"""Queries of evaluation images, computed once per run: the backbone is frozen and evaluation transforms are fixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class QueryCache:
    """Remembers ``(N, D)`` features by the position of an image in its split.

    :meth:`expect` announces which images the next pass is about; a pass that was not announced, or has another batch
    size, is computed and not remembered. The cache is not saved: a resumed run fills it again.
    """

    def __init__(self) -> None:
        self.features: dict[str, Tensor] = {}
        self.known: dict[str, Tensor] = {}
        self.hits = 0
        self._expected: tuple[str, Tensor, int] | None = None

    def expect(self, split: str, index: Tensor, size: int) -> None:
        """The next pass is over the images at ``index`` (``(B,)``, on the CPU) of a split with ``size`` images."""
        self._expected = (split, index, size)

    def forget_expectation(self) -> None:
        """The next pass is over unknown images."""
        self._expected = None

    def get(self, compute: Callable[[], Tensor], batch_size: int) -> Tensor:
        """``(B, D)`` features from memory, or from ``compute`` (and then remembered)."""
        expected, self._expected = self._expected, None
        if expected is None or len(expected[1]) != batch_size:
            return compute()
        split, index, size = expected
        if split not in self.known or len(self.known[split]) != size:
            self.known[split] = torch.zeros(size, dtype=torch.bool)
            self.features.pop(split, None)
        if bool(self.known[split][index].all()):  # on the CPU: no host sync
            self.hits += 1
            store = self.features[split]
            return store[index.to(store.device, non_blocking=True)]
        feature = compute()
        if split not in self.features:
            self.features[split] = feature.new_zeros(size, feature.shape[1])
        store = self.features[split]
        store[index.to(store.device, non_blocking=True)] = feature.detach().to(store.dtype)
        self.known[split][index] = True
        return feature
