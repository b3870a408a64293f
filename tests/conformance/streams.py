"""A stream of 81 small images: 3 tasks of 2 classes, every epoch with a short last batch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, Forget, UnlabelledDomains

IMAGE_SIZE, NUM_CLASSES, NUM_TASKS = 16, 6, 3
BATCH_SIZE = 8
EPOCHS = (1, 2, 1)
#: 27 images a task: batches of 8, 8, 8 and 3, which two processes cannot share evenly.
STEPS_PER_EPOCH = 4


@cache
def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """13 or 14 training and 7 test images of each of six digits, ``(N, 16, 16)`` uint8."""
    data = load_digits()
    train, test = [], []
    for label in range(NUM_CLASSES):
        members = np.flatnonzero(data.target == label)
        count = 13 + label % 2
        train.append(members[:count])
        test.append(members[count : count + 7])
    images = np.kron(data.images * (255 / 16), np.ones((1, 2, 2))).round().astype(np.uint8)
    parts = [np.concatenate(part) for part in (train, test)]
    return (images[parts[0]], data.target[parts[0]]), (images[parts[1]], data.target[parts[1]])


def make_stream(kind: str = "labelled", **options: Any) -> ContinualDataModule:
    """A stream of the kind that a method is made for: each has as many tasks, and as many steps in each."""
    train, test = digits()
    if kind == "forget":  # 30 images, of which the second request may read 25
        first = np.concatenate([np.flatnonzero(train[1] == label)[:5] for label in range(NUM_CLASSES)])
        train = train[0][first], train[1][first]
        options.setdefault("scenario", Forget([[0], [1]], retained=1.0))
    domains = {}
    if kind == "unlabelled":  # classes in turn, so that every domain has all of them
        domains = {
            f"{split}_domains": np.arange(len(part[1])) % NUM_TASKS
            for split, part in (("train", train), ("test", test))
        }
        options.setdefault("scenario", UnlabelledDomains())
    source = ArraySource(train, test, **domains, mean=(0.3,), std=(0.38,), augment=options.pop("augment", "crop"))
    scenario = options.pop("scenario", None) or ClassIncremental(num_tasks=NUM_TASKS, class_order=range(NUM_CLASSES))
    return ContinualDataModule(source, scenario, **{"batch_size": BATCH_SIZE, "epochs_per_task": EPOCHS, **options})
