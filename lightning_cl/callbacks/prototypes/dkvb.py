"""DKVB: many codebooks of fixed keys and learned values between a frozen network and the logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lightning_cl.callbacks.arguments import above, at_least
from lightning_cl.callbacks.prototypes.feature_method import CountingMethod
from lightning_cl.nn.counter import Counter
from lightning_cl.nn.distributed import send_from_first_process
from lightning_cl.nn.heads import KeyValueHead
from lightning_cl.training import TaskData
from lightning_cl.training.feature_classifier import FeatureClassifier
from lightning_cl.training.first_task import FirstTask


class KeyValueClassifier(FeatureClassifier):
    """Fits the keys before the first step; then makes a step of the values with every batch.

    Attributes:
        key_epochs, key_batch_size: Passes over the features that keys are fitted to, and their batches.
        given: ``(N, D)`` features of other data to fit them to; ``None``: those of the first task.
    """

    bank: KeyValueHead
    key_epochs: int
    key_batch_size: int
    given: torch.Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fitted = Counter()

    def counts_now(self, trainer: Any, stream: Any) -> bool:
        """In every epoch: values are learned by gradient descent."""
        return True

    def start_task(self, module: Any, task: Any) -> None:
        """Before the first task: fit the keys, the same on every process."""
        if self.fitted.value:
            return
        features = self.given
        if features is None:
            features = torch.cat([found for found, _, _ in TaskData(module, task).features()])
        self.bank.fit_keys(features.to(self.bank.keys.device), self.key_epochs, self.key_batch_size)
        send_from_first_process([self.bank.keys])
        self.fitted.set(1)


@dataclass(eq=False)
class DKVB(CountingMethod):
    """Discrete key-value bottleneck (Träuble et al., ICML 2023, arXiv:2207.11240) on a frozen network.

    Each of ``codebooks`` random projections of a feature finds the nearest of ``pairs`` keys, and logits are the mean
    of their values. Keys are fitted once, by moving averages without labels, to the features of the first task's
    images or to those of other data, and then fixed. Values start at zero and learn by plain gradient descent on a
    cross-entropy with smoothed labels over all classes, in place of the user's step and optimiser, whose momentum or
    decay would move what was not fetched: a step changes only the values that its batch fetched. Pairs that were
    never fetched do not answer. Defaults are of the released code, which repeats 2,000 epochs a task.

    Needs no task boundaries once keys are fitted, and no sample kept; keeps ``codebooks * pairs * (key_width + C)``
    numbers (480 MB for 100 classes). Costs one pass of each image for the keys and one in each epoch. Works on any
    model with a class head.

    Args:
        codebooks: At least 1.
        pairs: Keys of a codebook, at least 1.
        key_width: Channels of a key, at least 1.
        lr: Learning rate of the values, above 0; large, since gradients are divided by ``codebooks``.
        label_smoothing: At least 0, below 1.
        clip: Most of a gradient's norm, above 0.
        key_epochs: Passes over the features to fit keys, at least 0; with 0 keys are random.
        key_features: ``.npy`` file of ``(N, D)`` features of other data to fit the keys to; ``None``: those of the
            first task, on the evaluation transform.
        seed: Of projections and keys.
        augment: Learn from augmented training images; by default they get the evaluation transform.

    Raises:
        ValueError: If a number is out of its range, the tensors do not fit into memory, or the file does not fit; on an
            online stream without ``key_features``, whose first task nobody can look through beforehand.
    """

    state_key: ClassVar[str] = "lightning_cl.DKVB"
    small: ClassVar[dict[str, Any]] = {"codebooks": 4, "pairs": 16, "key_width": 4, "key_epochs": 2}
    advice: ClassVar[str] = "give fewer `codebooks` or `pairs`"

    codebooks: int = at_least(1, default=256)
    pairs: int = at_least(1, default=4096)
    key_width: int = at_least(1, default=14)
    lr: float = above(0, default=0.3)
    label_smoothing: float = at_least(0, default=0.1)
    clip: float = above(0, default=1.0)
    key_epochs: int = at_least(0, default=10)
    key_features: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing >= 1:
            raise ValueError(f"`label_smoothing` is {self.label_smoothing}; give a number below 1.")

    def check_stream(self, stream: Any) -> None:
        """An ordered pass has no first task to fit the keys to."""
        if stream.online and self.key_features is None and self.key_epochs:
            raise ValueError(
                "DKVB fits its keys to the first task's images before the first step, but a stream of one ordered pass "
                "shows nothing beforehand; give `key_features` of other data, or random keys (`key_epochs=0`)."
            )

    def bank(self, num_classes: int, width: int) -> KeyValueHead:
        """Codebooks."""
        sizes = self.codebooks, self.pairs, self.key_width
        return KeyValueHead(num_classes, width, *sizes, self.lr, self.label_smoothing, self.clip, self.seed)

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """Keys with their two averages, values, projections."""
        return 4 * self.codebooks * (self.pairs * (3 * self.key_width + num_classes) + width * self.key_width)

    def classifier(self, pl_module: Any, bank: Any, first: FirstTask | None) -> FeatureClassifier:
        """With the features that keys are fitted to, if they are of other data."""
        part = KeyValueClassifier(pl_module, bank, self.cache_features)
        part.key_epochs, part.key_batch_size = self.key_epochs, 256
        part.given = None if self.key_features is None else self._read(bank.projection.shape[1])
        return part

    def _read(self, width: int) -> torch.Tensor:
        features = np.load(Path(str(self.key_features)), allow_pickle=False)
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(
                f"`key_features` has the shape {features.shape}, but the network's features have {width} channels; "
                f"give an array of (N, {width})."
            )
        return torch.from_numpy(features.astype(np.float32))
