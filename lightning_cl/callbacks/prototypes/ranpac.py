"""RanPAC: ridge regression on random features, with a ridge chosen on training data and a tuned first task."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch

from lightning_cl.callbacks.arguments import at_least, choice, fraction
from lightning_cl.callbacks.prototypes.feature_method import CountingMethod
from lightning_cl.callbacks.stream_kind import Boundaries
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.heads import GramHead, choose_ridge, held_out
from lightning_cl.training import TaskData
from lightning_cl.training.feature_classifier import FeatureClassifier
from lightning_cl.training.first_task import FirstTask


class RidgeClassifier(FeatureClassifier):
    """Chooses the ridge on a fifth of a task's samples when it ends, then counts them, too.

    Attributes:
        alone: Fit on the task's own samples, with the ridge's absolute size (the published code); otherwise on all
            samples so far, with a ridge in proportion to the diagonal of the Gram matrix.
    """

    alone: bool = False
    bank: GramHead

    def count(self, data: TaskData) -> None:
        """Count four fifths, choose the ridge, and count the rest."""
        bank, before, held = self.bank, None, []
        if self.alone:
            before = bank.gram.clone(), bank.cross.clone()
        for features, labels, positions in data.features():
            apart = held_out(positions).to(labels.device)
            bank.update(features[~apart], labels[~apart])
            held.append((features[apart], labels[apart]))
        features, labels = (torch.cat(parts) for parts in zip(*held, strict=True))
        gram, cross = bank.gram, bank.cross
        if before is not None:
            gram, cross = gram - before[0], cross - before[1]
        scale = 1.0 if self.alone else float(gram.diagonal().mean())
        found = choose_ridge(gram, cross, bank.hidden(features), labels, scale)
        bank.set_ridge(bank.ridge if found is None else found)
        bank.update(features, labels)


@dataclass(eq=False)
class RanPAC(CountingMethod):
    """RanPAC (McDonnell et al., NeurIPS 2023, arXiv:2307.02251): random projections and a ridge classifier.

    ``h = relu(f W)`` with a fixed ``W`` of ``(D, M)`` normal numbers; logits are ``h (G + ridge I)^-1 Q`` with the sums
    ``G = sum h^T h`` and ``Q = sum h^T y`` over all samples so far in float64, so with a fixed ridge any order and
    split of the stream gives the same weights. The ridge is chosen when a task ends: of 17 strengths
    that with the least squared error on a fifth of the task's samples, fitted on all others so far. A first task may
    tune the backbone (the paper's phase 1), with adapters or SSF as in APER.

    Needs the end of a task, unless ``ridge`` is a number and ``first_task="none"``. Keeps ``M^2 + M C`` numbers (800 MB
    for 10,000) and no sample. Every training image passes the network once outside of the first task, every
    evaluation image once a run; one epoch for each later task is enough. Works on any model with a class head, with
    adapters or SSF on timm ViTs.

    Args:
        features: Random features, ``M``, at least 1; 10,000 as in the paper.
        ridge: Strength of the regularisation, at least 0; ``None``: chosen at the end of each task.
        first_task: ``"none"``: the network stays as it is; ``"adapter"`` or ``"ssf"``: these learn the first task.
        logits: ``"linear"`` as published, or ``"cosine"``: cosines of ``h`` and the columns of the weights, as PILOT.
        faithful: Choose the ridge as the published code does: from 1e-8 to 1e8, fitted on the current task alone. By
            default these are multiplied by the mean of ``G``'s diagonal, and all samples so far are fitted.
        seed: Of ``W``.
        rank: Hidden size of an adapter, at least 1.
        scale: Of what adapters add, at least 0.
        dropout: Of adapters, behind the ReLU, in [0, 1].
        backbone: Dotted path of the ViT that is tuned; found when ``None``.
        augment: Count augmented images, where samples are counted in the steps.
        train_mask: Which classes compete in the training loss of the first task.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: If a number is out of its range, or the matrices do not fit into memory; if the ridge is to be
            chosen, or the first task to be tuned, on an online stream; when attached, without a ViT to tune.
    """

    state_key: ClassVar[str] = "lightning_cl.RanPAC"
    boundaries: ClassVar[Boundaries] = "needed"  # unless the ridge is given, and the first task does not tune
    small: ClassVar[dict[str, Any]] = {"features": 48, "first_task": "adapter", "rank": 4, "dropout": 0.0}
    advice: ClassVar[str] = "give fewer `features`"

    features: int = at_least(1, default=10_000)
    ridge: float | None = at_least(0, default=None)
    first_task: Literal["none", "adapter", "ssf"] = choice(("none", "adapter", "ssf"), default="none")
    logits: Literal["linear", "cosine"] = choice(("linear", "cosine"), default="linear")
    faithful: bool = False
    seed: int = 0
    _: KW_ONLY
    rank: int = at_least(1, default=64)
    scale: float = at_least(0, default=0.1)
    dropout: float = fraction(default=0.1)
    backbone: str | None = None
    train_mask: TrainMask = "seen"

    @property
    def at_task_end(self) -> bool:
        """When the first task is tuned, or the ridge is chosen."""
        return self.trains or self.ridge is None

    def bank(self, num_classes: int, width: int) -> GramHead:
        """A ridge head on normal random features."""
        projection = torch.randn(width, self.features, generator=torch.Generator().manual_seed(self.seed))
        ridge = 1.0 if self.ridge is None else self.ridge
        return GramHead(width, num_classes, ridge, projection, self.logits == "cosine")

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """The Gram matrix, it with the ridge, and its factor; and what is multiplied by them."""
        return self.features * (3 * 8 * self.features + 2 * 8 * num_classes + 4 * width)

    def classifier(self, pl_module: Any, bank: Any, first: FirstTask | None) -> FeatureClassifier:
        """With a ridge that is chosen, or as it was given."""
        if self.ridge is not None:
            return super().classifier(pl_module, bank, first)
        part = RidgeClassifier(pl_module, bank, self.cache_features, first, self.at_task_end)
        part.alone = self.faithful
        return part
