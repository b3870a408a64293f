"""Generalized class-incremental learning: every phase draws its classes, and how many images of each, anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.scenarios.base import Scenario, check_every_class, check_order, warn_of_absent
from lightning_cl.datamodules.task import Order

WeightRule = Literal["uniform", "longtail"]


def class_weights(num_classes: int, rule: WeightRule | Sequence[float], decay: float = 0.984) -> np.ndarray:
    """Relative number of images of each class, ``(C,)``: all 1, ``decay ** c``, or as given.

    Raises:
        ValueError: If the rule is unknown, or weights are not one positive number per class.
    """
    if isinstance(rule, str):
        if rule not in ("uniform", "longtail"):
            raise ValueError(f"`weights` is {rule!r}; expected 'uniform', 'longtail' or one number per class.")
        return np.ones(num_classes) if rule == "uniform" else decay ** np.arange(num_classes)
    weights = np.asarray(rule, dtype=np.float64)
    if weights.shape != (num_classes,) or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(
            f"`weights` has {weights.size} entries, the smallest {weights.min(initial=np.inf)}, but there are "
            f"{num_classes} classes; give each a positive number."
        )
    return weights


def phase_counts(
    available: np.ndarray, max_classes: int, phase_size: int, weights: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Number of images of each class in one phase, ``(C,)``; 0 for the classes that are not in it.

    The number of classes is uniform in ``1 .. max_classes``, the classes are drawn uniformly, and the images over them
    by weight. Every class that is drawn has an image, and none has more than are available, so a phase of few classes
    may be smaller than ``phase_size``.

    Args:
        available: ``(C,)`` images that each class still has; at least one is positive.
        max_classes: Upper bound of the number of classes.
        phase_size: Number of images, at least ``max_classes``.
        weights: ``(C,)`` see :func:`class_weights`.
        rng: Drawn from.
    """
    left = np.flatnonzero(available)
    held = rng.choice(left, size=rng.randint(1, min(len(left), max_classes) + 1), replace=False)
    share = weights[held] / weights[held].sum()
    counts = np.zeros(len(available), dtype=np.int64)
    counts[held] = 1 + rng.multinomial(phase_size - len(held), share)
    bounded: np.ndarray = np.minimum(counts, available)
    return bounded


def generalized_cil(
    labels: Tensor,
    num_classes: int,
    num_phases: int,
    max_classes: int,
    phase_size: int,
    weights: np.ndarray,
    reuse: bool,
    seed: int,
) -> list[Tensor]:
    """Positions of each phase's samples, mixed; see :class:`GeneralizedCIL`.

    Raises:
        ValueError: If images may not be reused and none is left for a phase.
    """
    rng = np.random.RandomState(mix_seed(seed, num_classes, num_phases) % 2**32)  # its numbers never change
    members = [(labels == c).nonzero().flatten().numpy() for c in range(num_classes)]
    phases = []
    for phase in range(num_phases):
        available = np.array([len(positions) for positions in members])
        if not available.any():
            raise ValueError(
                f"all {len(labels)} images are used up before phase {phase} of {num_phases}; use fewer phases, a "
                "smaller `phase_size`, or `reuse=True`."
            )
        counts, chosen = phase_counts(available, max_classes, phase_size, weights, rng), []
        for c in counts.nonzero()[0]:
            positions = rng.permutation(members[c])
            chosen.append(positions[: counts[c]])
            if not reuse:
                members[c] = positions[counts[c] :]
        phases.append(torch.from_numpy(rng.permutation(np.concatenate(chosen))))
    return phases


class GeneralizedCIL(Scenario):
    """Every phase draws classes and images anew (generalized class-incremental learning, Mi et al., CVPR-W 2020).

    Classes come back, their number differs between phases, and so does the number of images between the classes of a
    phase. The defaults are those of the paper on CIFAR-100. Some classes may never be drawn; a warning names them.

    Args:
        num_phases: Number of tasks.
        max_classes: A phase has a uniformly random number of classes, from 1 to this.
        phase_size: Images of a phase; fewer, if the classes that were drawn do not have so many.
        weights: Relative number of images of the classes of a phase: ``"uniform"``; ``"longtail"``, ``decay ** c`` for
            class ``c``; or one positive number per class.
        decay: For ``"longtail"``, in (0, 1].
        reuse: Whether an image may come back in a later phase; never twice in one.
        order: ``"stream"``: each phase is one ordered pass; ``"shuffled"``: as many epochs as wanted.
        seed: Seed of the draws; ``None``: the stream's.

    Raises:
        ValueError: If a number is out of range or a choice is unknown; and from :meth:`train_tasks` if weights do not
            fit the classes, or images are used up.
    """

    def __init__(
        self,
        num_phases: int = 20,
        max_classes: int = 50,
        phase_size: int = 1000,
        weights: WeightRule | Sequence[float] = "uniform",
        decay: float = 0.984,
        reuse: bool = True,
        order: Order = "stream",
        seed: int | None = None,
    ) -> None:
        for name, value in (("num_phases", num_phases), ("max_classes", max_classes), ("phase_size", phase_size)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        if phase_size < max_classes:
            raise ValueError(
                f"`phase_size` is {phase_size}, fewer images than `max_classes`={max_classes}; every class of a phase "
                "needs one."
            )
        if not 0 < decay <= 1:
            raise ValueError(f"`decay` is {decay}; give a number in (0, 1].")
        if isinstance(weights, str):
            class_weights(1, weights)
        check_order(order)
        self.num_phases, self.max_classes, self.phase_size = num_phases, max_classes, phase_size
        self.weights, self.decay, self.reuse = weights, decay, reuse
        self.order, self.seed = order, seed

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each phase's samples in order of arrival; a sample may be in several phases."""
        check_every_class(labels, num_classes)
        weights = class_weights(num_classes, self.weights, self.decay)
        tasks = generalized_cil(
            labels,
            num_classes,
            self.num_phases,
            self.max_classes,
            self.phase_size,
            weights,
            self.reuse,
            seed if self.seed is None else self.seed,
        )
        warn_of_absent(type(self).__name__, labels, num_classes, tasks)
        return tasks
