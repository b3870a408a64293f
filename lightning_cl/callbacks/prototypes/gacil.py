"""ACIL and G-ACIL: ridge regression on random features of a frozen network, exact after any stream."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch

from lightning_cl.callbacks.arguments import at_least, choice
from lightning_cl.callbacks.prototypes.feature_method import CountingMethod
from lightning_cl.mixins.base import TrainMask
from lightning_cl.nn.heads import GramHead
from lightning_cl.training.feature_classifier import FeatureClassifier


@dataclass(eq=False)
class GACIL(CountingMethod):
    """G-ACIL (Zhuang et al., NeurIPS 2024, arXiv:2403.15706): an analytic head for any stream, Si-Blurry ones, too.

    ``h = relu(f W)`` with the features ``f`` that reach the head and a fixed ``W`` of ``(D, M)`` uniform numbers as
    ``nn.Linear`` draws them; logits are ``h (sum h^T h + ridge I)^-1 sum h^T y`` with one-hot ``y``. The sums are in
    float64, so the weights are those of joint training, after any order, batches or split of the stream, also where
    old classes come again. This is the paper's recursion in another form. Needs no task boundaries and no sample kept;
    keeps ``M^2 + M C`` numbers (200 MB for 5,000). Every training image passes the network once, in a task's first
    epoch, every evaluation image once a run. Works on any model with a class head.

    Args:
        features: Random features, ``M``, at least 1; 5,000 as in the paper.
        ridge: Strength of the regularisation, at least 0; compare it with the mean of ``h^2`` times the number of
            samples. 100 as in the paper, which found no difference from 10 to 1,000.
        fits_per_batch: How often each sample counts, at least 1; the released code has 3, that is a third of the ridge.
        seed: Of ``W``.

    Raises:
        ValueError: If a number is out of its range, or the matrices do not fit into memory; while evaluating, if the
            ridge is 0 and there are fewer samples than features.
    """

    state_key: ClassVar[str] = "lightning_cl.GACIL"
    small: ClassVar[dict[str, Any]] = {"features": 48}
    advice: ClassVar[str] = "give fewer `features`"

    features: int = at_least(1, default=5000)
    ridge: float = at_least(0, default=100.0)
    fits_per_batch: int = at_least(1, default=1)
    seed: int = 0

    def bank(self, num_classes: int, width: int) -> GramHead:
        """A ridge head on uniform random features."""
        draws = torch.rand(width, self.features, generator=torch.Generator().manual_seed(self.seed))
        return GramHead(width, num_classes, self.ridge / self.fits_per_batch, (2 * draws - 1) / width**0.5)

    def bytes_needed(self, num_classes: int, width: int) -> int:
        """The Gram matrix, it with the ridge, and its factor; and what is multiplied by them."""
        return self.features * (3 * 8 * self.features + 2 * 8 * num_classes + 4 * width)


@dataclass(eq=False)
class ACIL(GACIL):
    """ACIL (Zhuang et al., NeurIPS 2022, arXiv:2205.14922): an analytic head for tasks of disjoint classes.

    As :class:`GACIL`, with the constants of its code, and with ordinary training in the first task (the paper's base
    phase) if wanted, after which the network is frozen; then samples are counted at the end of each task, and one
    epoch for each later task is enough: ``epochs_per_task=[100, 1, 1, ...]``. Works on any model with a class head.

    Args:
        features: Random features, ``M``, at least 1; 8,192 as in the released code.
        ridge: Strength of the regularisation, at least 0; 0.1 as in the released code.
        fits_per_batch: How often each sample counts, at least 1.
        seed: Of the random features.
        first_task: ``"none"``: the network stays as it is; ``"all"``: it learns the first task by the user's step.
        train_mask: Which classes compete in the training loss of the first task.
        reset_optimizer: Build fresh optimisers and schedulers at every task start but the first.

    Raises:
        ValueError: As :class:`GACIL`; when attached, if a class comes again in a later task.
    """

    state_key: ClassVar[str] = "lightning_cl.ACIL"

    features: int = 8192
    ridge: float = 0.1
    _: KW_ONLY
    first_task: Literal["none", "all"] = choice(("none", "all"), default="none")
    train_mask: TrainMask = "seen"

    def build(self, pl_module: Any, info: Any) -> FeatureClassifier:
        """The ridge head, if the tasks have disjoint classes."""
        if info.repeated_classes:
            again = info.repeated_classes
            raise ValueError(f"ACIL is for tasks of disjoint classes, but {again} come in several; use GACIL.")
        return super().build(pl_module, info)
