"""Features of evaluation images, computed once per run: the backbone is frozen and evaluation transforms are fixed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Values of a sample that its fingerprint reads, evenly spread: enough for every picture that is another one.
_READ = 4096
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def sample_fingerprints(inputs: Tensor) -> Tensor:
    """Compute a number for each sample that changes with its values and their places.

    It is made of the very bits of up to 4,096 to 8,192 values of a sample, so its cost does not grow with the picture.

    Args:
        inputs: ``(B, ...)`` of any dtype.

    Returns:
        ``(B,)`` int64 on the CPU, which waits for the device.
    """
    values = torch.view_as_real(inputs.detach()) if inputs.is_complex() else inputs.detach()
    rows = values.reshape(values.shape[0], -1)
    rows = rows[:, :: max(rows.shape[1] // _READ, 1) | 1]  # an odd step, or it would stay in a few columns
    places = torch.arange(1, rows.shape[1] + 1, device=rows.device) * 0x1E3779B97F4A7C15  # overflow wraps around
    weights = (places ^ (places >> 31)) * 0x3F58476D1CE4E5B9 | 1
    sums: Tensor = (rows.view(_BITS[rows.element_size()]).long() * weights).sum(dim=1)
    return sums.cpu()


class FeatureCache:
    """Remembers ``(N, D)`` features by the position of an image in its split, and what the image looked like.

    :meth:`expect` announces which images the next pass is about. A pass that was not announced or has another batch
    size is computed and not remembered; where the input is not what was remembered at its position (a step that sorts
    or augments its batch), it is computed anew. The cache is neither saved nor copied: a resumed run or a copy fills
    it again.

    Attributes:
        hits: Number of batches that were answered from memory.
        enabled: ``False``: nothing is announced, so nothing is remembered.
    """

    enabled = True

    def __init__(self) -> None:
        self.features: dict[str, Tensor] = {}
        self.known: dict[str, Tensor] = {}
        self.prints: dict[str, Tensor] = {}
        self.hits = 0
        self._expected: tuple[str, Tensor, int] | None = None
        self._origin: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[()]]:
        return FeatureCache, ()

    def clear(self) -> None:
        """Forget all features, as when the backbone gets other weights."""
        self.features, self.known, self.prints = {}, {}, {}

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
        """Return what was announced with :meth:`expect`, or ``None``."""
        return self._expected

    def awaits(self, batch_size: int) -> bool:
        """Whether a pass over so many samples was announced with :meth:`expect`."""
        return self._expected is not None and len(self._expected[1]) == batch_size

    def matches(self, prints: Tensor) -> Tensor:
        """``(B,)`` bool on the CPU: which of the announced images are known, by the fingerprints ``(B,)`` of the input.

        :meth:`awaits` must have said that these are so many.
        """
        assert self._expected is not None
        split, index, size = self._expected
        known = self.known.get(split)
        if known is None or len(known) != size:
            return torch.zeros(len(index), dtype=torch.bool)
        return known[index] & (self.prints[split][index] == prints)

    def recall(self) -> Tensor:
        """``(B, D)`` features of the announced images, which must be known."""
        assert self._expected is not None
        split, index, _ = self._expected
        self.hits += 1
        store = self.features[split]
        return store[index.to(store.device, non_blocking=True)]

    def remember(self, features: Tensor, prints: Tensor, chosen: Tensor | None = None) -> None:
        """Keep ``(n, D)`` features of the announced images and the fingerprints ``(n,)`` of their input.

        Args:
            features: Nothing is kept of another number of them.
            prints: Of the same images.
            chosen: ``(B,)`` bool: which of the announced images; all by default.
        """
        if self._expected is None:
            return
        split, index, size = self._expected
        index = index if chosen is None else index[chosen]
        if not len(index) == len(features) == len(prints):
            return
        if split not in self.known or len(self.known[split]) != size:
            self._make_room(split, size, features)
        store = self.features[split]
        store[index.to(store.device, non_blocking=True)] = features.detach().to(store)
        self.prints[split][index] = prints
        self.known[split][index] = True

    def look_up(self, compute: Callable[[Tensor | None], Tensor], inputs: Tensor) -> Tensor:
        """``(B, D)`` features of announced samples and of others behind them; what is not known is not remembered.

        Which rows are computed depends on these samples alone, not on the passes before.

        Args:
            compute: Computes features (given the rows to compute, or all).
            inputs: ``(B, ...)`` what they are computed from.
        """
        count = 0 if self._expected is None else len(self._expected[1])
        if not 0 < count <= inputs.shape[0]:
            return compute(None)
        known = self.matches(sample_fingerprints(inputs[:count]))
        if not bool(known.any()):
            return compute(None)
        features = self.recall()
        if len(known) == inputs.shape[0] and bool(known.all()):
            return features
        rest = torch.ones(inputs.shape[0], dtype=torch.bool)
        rest[:count] = ~known
        computed = compute(rest.nonzero().flatten())
        whole = computed.new_empty(inputs.shape[0], computed.shape[1])
        whole[(~rest).to(whole.device)] = features[known.to(features.device)].to(whole)
        whole[rest.to(whole.device)] = computed
        return whole

    def take(self, split: str) -> tuple[Tensor, Tensor]:
        """Hand out the features and fingerprints of a split, and forget them.

        Raises:
            KeyError: If nothing of it was remembered.
        """
        self.forget_expectation()
        del self.known[split]
        return self.features.pop(split), self.prints.pop(split)

    def _make_room(self, split: str, size: int, like: Tensor) -> None:
        with torch.inference_mode(False):  # inference tensors could not be filled outside of inference mode
            self.known[split] = torch.zeros(size, dtype=torch.bool)
            self.prints[split] = torch.zeros(size, dtype=torch.int64)
            self.features[split] = torch.zeros(size, like.shape[1], dtype=like.dtype, device=like.device)

    def get(self, compute: Callable[[Tensor | None], Tensor], inputs: Tensor) -> Tensor:
        """``(B, D)`` features: from memory where known, else from ``compute`` (given the rows to compute, or all).

        Only the first pass after :meth:`expect` counts.

        Args:
            compute: Computes features.
            inputs: ``(B, ...)`` what they are computed from.
        """
        if not self.awaits(inputs.shape[0]):  # not len, which `torch.export` would take for a constant
            self.forget_expectation()
            return compute(None)
        prints = sample_fingerprints(inputs)
        missing = ~self.matches(prints)
        if bool(missing.all()):
            features = compute(None)
            self.remember(features, prints)
        else:
            if bool(missing.any()):
                self.remember(compute(missing.nonzero().flatten()), prints[missing], missing)
            features = self.recall()
        self.forget_expectation()
        return features
