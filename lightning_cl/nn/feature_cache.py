"""Features of evaluation images, computed once per run: the backbone is frozen and evaluation transforms are fixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class FeatureCache:
    """Remembers ``(N, D)`` features by the position of an image in its split.

    :meth:`expect` announces which images the next pass is about; a pass that was not announced, or has another batch
    size, is computed and not remembered. The cache is neither saved nor copied: a resumed run or a copy fills it again.

    Attributes:
        hits: Number of batches that were answered from memory.
        enabled: ``False``: nothing is announced, so nothing is remembered.
    """

    enabled = True

    def __init__(self) -> None:
        self.features: dict[str, Tensor] = {}
        self.known: dict[str, Tensor] = {}
        self.hits = 0
        self._expected: tuple[str, Tensor, int] | None = None
        self._origin: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[()]]:
        return FeatureCache, ()

    def clear(self) -> None:
        """Forget all features, as when the backbone gets other weights."""
        self.features, self.known = {}, {}

    def serve(self, *origin: object) -> None:
        """The images come from here (data, transform); forget all features if they came from elsewhere before.

        Compared by identity, since equal sizes do not mean equal images.
        """
        same = len(origin) == len(self._origin) and all(a is b for a, b in zip(origin, self._origin, strict=True))
        if not same:
            self.clear()
            self._origin = origin

    def expect(self, split: str, index: Tensor, size: int) -> None:
        """The next pass is over the images at ``index`` (``(B,)``, on the CPU) of a split with ``size`` images."""
        self._expected = (split, index, size)

    def forget_expectation(self) -> None:
        """The next pass is over unknown images."""
        self._expected = None

    @property
    def expected(self) -> tuple[str, Tensor, int] | None:
        """What was announced with :meth:`expect`, or ``None``."""
        return self._expected

    def lookup(self) -> Tensor | None:
        """``(B, D)`` features of the announced images if all are known, else ``None``; no host sync."""
        if self._expected is None:
            return None
        split, index, size = self._expected
        known = self.known.get(split)
        if known is None or len(known) != size or not bool(known[index].all()):
            return None
        self.hits += 1
        store = self.features[split]
        return store[index.to(store.device, non_blocking=True)]

    def missing(self) -> Tensor | None:
        """``(B,)`` bool on the CPU: which of the announced images are unknown; ``None`` if nothing was announced."""
        if self._expected is None:
            return None
        split, index, size = self._expected
        known = self.known.get(split)
        return ~known[index] if known is not None and len(known) == size else torch.ones(len(index), dtype=torch.bool)

    def narrow(self, chosen: Tensor) -> None:
        """The next pass is only over the announced images where ``chosen`` (``(B,)`` bool) is true."""
        assert self._expected is not None
        split, index, size = self._expected
        self._expected = (split, index[chosen], size)

    def remember(self, features: Tensor) -> None:
        """Keep ``(B, D)`` features of the announced images; nothing if another number was announced."""
        if self._expected is None or len(self._expected[1]) != len(features):
            return
        split, index, size = self._expected
        if split not in self.known or len(self.known[split]) != size:
            with torch.inference_mode(False):  # inference tensors could not be filled outside of inference mode
                self.known[split] = torch.zeros(size, dtype=torch.bool)
                self.features[split] = torch.zeros(
                    size, features.shape[1], dtype=features.dtype, device=features.device
                )
        store = self.features[split]
        store[index.to(store.device, non_blocking=True)] = features.detach().to(store)
        self.known[split][index] = True

    def get(self, compute: Callable[[Tensor | None], Tensor], batch_size: int) -> Tensor:
        """``(B, D)`` features: from memory where known, else from ``compute`` (given the rows to compute, or all).

        Only the first pass after :meth:`expect` counts.
        """
        expected = self._expected
        if expected is None or len(expected[1]) != batch_size:
            self.forget_expectation()
            return compute(None)
        features = self.lookup()
        if features is None:
            features = self._complete(compute)
        self.forget_expectation()
        return features

    def _complete(self, compute: Callable[[Tensor | None], Tensor]) -> Tensor:
        expected, missing = self._expected, self.missing()
        assert missing is not None
        if bool(missing.all()):
            features = compute(None)
            self.remember(features)
            return features
        self.narrow(missing)
        self.remember(compute(missing.nonzero().flatten()))
        self._expected = expected
        completed = self.lookup()
        assert completed is not None
        return completed
