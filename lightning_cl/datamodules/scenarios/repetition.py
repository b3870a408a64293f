"""Long streams in which every task is a random set of classes, and all of them come back."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.scenarios.base import Scenario, check_every_class, check_order, warn_of_absent
from lightning_cl.datamodules.task import Order

SecondHalf = Literal["same", "other", "part"]


def class_probabilities(num_classes: int, imbalance: float, sharpness: float, rng: np.random.RandomState) -> np.ndarray:
    """Probability of each class, ``(C,)``: ``p_c ~ ((1 - c * imbalance) / C) ** sharpness``, dealt out by the seed.

    Raises:
        ValueError: If a class would have no chance.
    """
    if (num_classes - 1) * imbalance >= 1:
        raise ValueError(
            f"`imbalance` is {imbalance}, which leaves some of {num_classes} classes no chance; give less than "
            f"1 / {num_classes - 1}."
        )
    weights = ((1 - np.arange(num_classes) * imbalance) / num_classes) ** sharpness
    return rng.permutation(weights / weights.sum())


def drawn_classes(
    num_tasks: int,
    classes_per_task: int,
    probabilities: np.ndarray,
    second_half: SecondHalf,
    rng: np.random.RandomState,
) -> list[np.ndarray]:
    """Classes of each task, drawn without replacement by ``(C,)`` probabilities.

    Raises:
        ValueError: If a task cannot have so many different classes.
    """
    num_classes, half = len(probabilities), (num_tasks + 1) // 2
    parts = np.array_split(rng.permutation(num_classes), 2)
    everything = np.arange(num_classes)
    allowed = {"same": (everything, everything), "other": (parts[0], parts[1]), "part": (everything, parts[0])}
    pools = allowed[second_half]
    smallest = min(map(len, pools))
    if classes_per_task > smallest:
        raise ValueError(
            f"`classes_per_task` is {classes_per_task} but tasks draw from {smallest} of {num_classes} classes "
            f"(`second_half={second_half!r}`); use at most {smallest}."
        )
    tasks = []
    for task in range(num_tasks):
        pool = pools[task >= half]
        share = probabilities[pool] / probabilities[pool].sum()
        tasks.append(rng.choice(pool, size=classes_per_task, replace=False, p=share))
    return tasks


class Repetition(Scenario):
    """Hundreds of small tasks, each a random set of classes that come back (SCoLe, Lesort et al., arXiv:2207.04543).

    It shows how knowledge accumulates over a long stream. Evaluate on all classes with ``evaluate_on="all"`` of the
    DataModule. A table row is kept for every arrival, so use ``samples_per_class`` for very long streams.

    Args:
        num_tasks: Number of tasks; the paper has hundreds to thousands.
        classes_per_task: Different classes of a task.
        samples_per_class: Samples that a task takes of each of its classes, drawn anew; ``None``: all.
        imbalance: Class ``c`` of an order that the seed decides has a probability in proportion to
            ``1 - c * imbalance``; 0: all have the same.
        sharpness: Power of these probabilities; above 1 frequent classes become more frequent.
        second_half: Which classes the second half of the tasks draws from: the ``"same"`` as the first; ``"other"``:
            each half has its own half of the classes; ``"part"``: a half of the classes no longer comes.
        order: ``"stream"``: each task is one ordered pass; ``"shuffled"``: as many epochs as wanted.
        seed: Seed of the draws; ``None``: the stream's.

    Raises:
        ValueError: If a number is out of range or a choice is unknown; and from :meth:`train_tasks` if there are not
            enough classes, or ``imbalance`` leaves one of them no chance.
    """

    def __init__(
        self,
        num_tasks: int = 500,
        classes_per_task: int = 2,
        samples_per_class: int | None = None,
        imbalance: float = 0.0,
        sharpness: float = 1.0,
        second_half: SecondHalf = "same",
        order: Order = "stream",
        seed: int | None = None,
    ) -> None:
        least = {"num_tasks": num_tasks, "classes_per_task": classes_per_task, "samples_per_class": samples_per_class}
        for name, value in least.items():
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")
        for name, number in (("imbalance", imbalance), ("sharpness", sharpness)):
            if not 0 <= number < float("inf"):
                raise ValueError(f"`{name}` is {number}; give a number of at least 0.")
        if second_half not in ("same", "other", "part"):
            raise ValueError(f"`second_half` is {second_half!r}; expected 'same', 'other' or 'part'.")
        check_order(order)
        self.num_tasks, self.classes_per_task, self.samples_per_class = num_tasks, classes_per_task, samples_per_class
        self.imbalance, self.sharpness, self.second_half = imbalance, sharpness, second_half
        self.order, self.seed = order, seed

    def train_tasks(self, labels: Tensor, domains: Tensor | None, num_classes: int, seed: int) -> list[Tensor]:
        """Positions of each task's samples in order of arrival; a sample comes in many tasks, once in each."""
        check_every_class(labels, num_classes)
        rng = np.random.RandomState(mix_seed(seed if self.seed is None else self.seed, num_classes) % 2**32)
        probabilities = class_probabilities(num_classes, self.imbalance, self.sharpness, rng)
        members = [(labels == c).nonzero().flatten().numpy() for c in range(num_classes)]
        tasks = []
        for held in drawn_classes(self.num_tasks, self.classes_per_task, probabilities, self.second_half, rng):
            chosen = [rng.permutation(members[c])[: self.samples_per_class] for c in held]
            tasks.append(torch.from_numpy(rng.permutation(np.concatenate(chosen))))
        warn_of_absent(type(self).__name__, labels, num_classes, tasks)
        return tasks
