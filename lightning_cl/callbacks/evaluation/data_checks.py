"""Check the data of a protocol: what is chosen by test data, and which samples are trained on and evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.trainer_checks import callbacks_of
from lightning_cl.namespace import EarlyStopping, ModelCheckpoint, Trainer
from lightning_cl.reports.protocol import Check, verdict
from lightning_cl.training.batch import INPUT_KEYS

_MANY = 0.01  # real data sets hold a few copies of their own


def choosers(trainer: Trainer) -> list[tuple[str, str]]:
    """Who decides by a metric, and by which: checkpoints, early stopping and plateau schedulers."""
    found = [
        (type(c).__name__, str(c.monitor))
        for c in callbacks_of(trainer)
        if isinstance(c, (EarlyStopping, ModelCheckpoint)) and c.monitor is not None
    ]
    plateaus = (config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau)
    return found + [(type(config.scheduler).__name__, str(config.monitor)) for config in plateaus if config.monitor]


def validated_metrics(trainer: Trainer) -> set[str]:
    """Names of all metrics that were logged in a validation so far."""
    loop = trainer.fit_loop.epoch_loop.val_loop if trainer.state.fn == "fit" else trainer.validate_loop
    return {item.meta.name for item in loop._results.values()}


def selection(chosen_by: list[tuple[str, str]], validated: Collection[str], split: str) -> Check:
    """Whether anything is chosen by metrics of the test split.

    Args:
        chosen_by: See :func:`choosers`.
        validated: Metrics that the validation logs.
        split: The split that is validated on.
    """
    measured = [(who, metric) for who, metric in chosen_by if _base(metric) in validated or metric in validated]
    compared = f"the metrics of {len(chosen_by)} choosing callback(s) and schedule(s); validation on the {split} split"
    if split != "test" or not measured:
        return verdict("selection", compared, numbers={"by_test_data": 0})
    who = ", ".join(f'{chooser}(monitor="{metric}")' for chooser, metric in measured)
    found = (
        f"{who} decides by a metric that is measured on the test split, and the best of several test results is no "
        "test result; hold training data out for it with `ContinualDataModule(val_split=0.1)` (and report "
        "`trainer.test`), or monitor a training metric."
    )
    return verdict("selection", compared, found, {"by_test_data": len(measured)})


def _base(metric: str) -> str:
    return metric.removesuffix("_epoch").removesuffix("_step")


def overlap(stream: ContinualDataModule) -> Check:
    """Whether a position of the training split is both trained on and evaluated."""
    layout = stream.layout
    held_out = [data for data in layout.evaluation.values() if data.split == "train"]
    trained = torch.zeros(len(stream.source.train_labels), dtype=torch.bool)
    trained[torch.cat(list(layout.train_index))] = True
    if not held_out:
        return verdict("overlap", "training and evaluation samples are of different splits", numbers={"shared": 0})
    evaluated = torch.cat([index for data in held_out for index in data.index]).unique()
    shared = int(trained[evaluated].sum())
    compared = f"{int(trained.sum())} training and {len(evaluated)} evaluation samples of the same split"
    found = (
        f"{shared} of {len(evaluated)} evaluation samples are trained on too, so their accuracy shows memory; let the "
        "scenario leave out what is held out (`ContinualDataModule(val_split=...)` does)."
    )
    return verdict("overlap", compared, found if shared else "", {"shared": shared})


def hidden_labels(batch: Any, labels: Tensor, who: str) -> Check:
    """Whether any part of a training batch tells the labels of its samples, which a stream does not give.

    Args:
        batch: As the module gets it, of the task ``who`` says.
        labels: ``(B,)`` true ones; a batch of one class is not looked at, for a constant part could be equal to them.
        who: The task, in words.
    """
    if len(labels.unique()) < 2:
        return Check("hidden labels", "not checked", message=f"the first batch of {who} is of one class")
    parts: list[Tensor] = []
    apply_to_collection(batch, Tensor, parts.append)
    rows = [part.reshape(len(labels), -1) for part in parts if part.ndim and len(part) == len(labels)]
    told = sum(bool((part.cpu() == labels[:, None]).all(dim=0).any()) for part in rows)
    found = (
        f"{told} part(s) of the training batches of {who} hold the labels of their samples, which the stream does not "
        "give; leave them out of the items, or name the labels with `batch_keys`."
    )
    compared = f"all parts of training batches of {who} with the labels of their samples"
    return verdict("hidden labels", compared, found if told else "", {"told": told})


def whole_classes(train: Tensor, evaluation: Tensor, budget: int) -> tuple[Tensor, Tensor, list[int]]:
    """All training and evaluation samples of as many classes as ``budget`` training images allow, smallest first.

    All of a few classes finds far more copies than a few of all classes: a copy has its original in the same class.

    Args:
        train: ``(N_train,)`` labels.
        evaluation: ``(N_eval,)`` labels.
        budget: At most so many of each; one class at least is looked at, in part if it is larger.

    Returns:
        Rows of ``train``, rows of ``evaluation``, and the classes.
    """
    counts = torch.bincount(train, minlength=int(evaluation.max()) + 1)
    present = sorted(evaluation.unique().tolist(), key=lambda c: (int(counts[c]), c))
    chosen: list[int] = []
    used = 0
    for label in (c for c in present if counts[c]):
        used += int(counts[label])
        if chosen and used > budget:
            break
        chosen.append(label)
    wanted = torch.tensor(chosen, dtype=torch.long)
    rows = [torch.isin(labels, wanted).nonzero().flatten() for labels in (train, evaluation)]
    return rows[0][:budget], rows[1][:budget], chosen


def content_digest(item: Any) -> bytes | None:
    """SHA-256 of the image in a data set's item; ``None`` for a kind of image that is not known."""
    image = item
    if isinstance(item, Mapping):
        image = next((item[key] for key in INPUT_KEYS if key in item), None)
    elif isinstance(item, (tuple, list)):
        image = item[0]
    if isinstance(image, Tensor):
        image = image.detach().cpu().contiguous().numpy()
    elif hasattr(image, "tobytes") and hasattr(image, "mode"):  # a PIL image
        image = np.asarray(image)
    if not isinstance(image, np.ndarray) or image.dtype == object:
        return None
    return hashlib.sha256(f"{image.shape}{image.dtype}".encode() + np.ascontiguousarray(image).tobytes()).digest()


def duplicates(stream: ContinualDataModule, budget: int) -> Check:
    """Whether evaluation images are copies, byte for byte, of training images; at most ``budget`` of each are read."""
    name, source, data = "duplicates", stream.source, stream.eval_data("test")
    if budget == 0:
        return Check(name, "not checked", message="turned off with `duplicates=0`")
    train, evaluated = torch.cat(list(stream.layout.train_index)), torch.cat(list(data.index))
    rows, eval_rows, classes = whole_classes(source.train_labels[train], data.labels[evaluated], budget)
    known = {content_digest(source.item("train", int(i))) for i in train[rows]}
    if None in known:
        return Check(name, "not checked", message="the source's images are of a kind that cannot be compared")
    digests = [content_digest(source.item(data.split, int(i))) for i in evaluated[eval_rows]]
    copies = sum(digest in known for digest in digests)
    compared = f"{len(digests)} test images with {len(rows)} training images of {len(classes)} class(es), byte for byte"
    remark = f"{copies} copy: so few are the data set's own" if copies else ""
    found = (
        f"{copies} of {len(digests)} test images are among the training images, so their accuracy shows memory; give "
        "the source a test split of its own, or remove the copies from the training split."
    )
    many = copies > max(1, _MANY * len(digests))
    return verdict(name, compared, found if many else "", {"copies": copies}, remark)


def tuning(declared: str | None) -> Check:
    """How hyperparameters were chosen: no run can see it, so it can only be declared."""
    message = f"declared: {declared}" if declared else "a run cannot see it; declare it with `tuned_on=...`"
    return Check("tuning", "not checked", message=message)
