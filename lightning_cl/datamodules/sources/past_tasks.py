"""Tasks that a model has learned already, as a source whose training images may be gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.sources.base import Source, Split
from lightning_cl.datamodules.stream_plan import EvalData, StreamLayout, first_arrivals, newly_seen
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.datamodules.task import StreamInfo


class PastTasks(Source):
    """What is left of the tasks behind a trained model, so that their stream can go on with other data.

    How many training samples there were is known, their images are not. Evaluation images are those that are still
    there, each in its own task.

    Args:
        info: The stream of the past tasks, as its checkpoint has it.
        counts: For each task the number of training samples of each of its classes, by class id.
        test_items: Evaluation images that are still there: what :meth:`item` hands to ``read``.
        test_labels: ``(N_test,)`` their classes.
        test_tasks: ``(N_test,)`` their tasks.
        read: Reads one of ``test_items``.
        transform: Of an evaluation image; ``None``: as it is.
    """

    def __init__(
        self,
        info: StreamInfo,
        counts: Sequence[Mapping[int, int]],
        test_items: Sequence[Any],
        test_labels: Tensor,
        test_tasks: Tensor,
        read: Callable[[Any], Any],
        transform: Callable[[Any], Any] | None,
    ) -> None:
        self.info, self.items, self.read, self.transform = info, test_items, read, transform
        self._parts = [torch.tensor([c for c, n in sorted(part.items()) for _ in range(n)]) for part in counts]
        self._test, self._tasks = test_labels.long(), test_tasks.long()

    def _open(self) -> None:
        self._describe(torch.cat(self._parts), self._test, self.info.class_names)

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``.

        Raises:
            ValueError: For a training image.
        """
        if split == "test":
            return self.read(self.items[index]), int(self.test_labels[index])
        raise ValueError(
            "a training image of an earlier task was asked for, but none is kept; use a method that needs no earlier "
            'image, or a memory of samples from the first call on (`ExperienceReplay(store="sample")`).'
        )

    def train_transform(self) -> Callable[[Any], Any] | None:
        """Nothing: there is no image."""
        return None

    def eval_transform(self) -> Callable[[Any], Any] | None:
        """As it was given."""
        return self.transform

    def layout(self) -> StreamLayout:
        """The past stream as it was, with the evaluation samples that are left."""
        ends = torch.tensor([len(part) for part in self._parts]).cumsum(0).tolist()
        train = tuple(torch.arange(end - len(part), end) for end, part in zip(ends, self._parts, strict=True))
        index = tuple((self._tasks == task).nonzero().flatten() for task in range(self.info.num_tasks))
        evaluation = EvalData("test", index, self.test_labels, self._tasks)
        new_classes = newly_seen(self.info.classes_per_task)
        labels = self.train_labels
        return StreamLayout(
            train,
            {"val": evaluation, "test": evaluation, "anytime": evaluation},
            new_classes,
            tuple(first_arrivals(labels[rows], new) for rows, new in zip(train, new_classes, strict=True)),
            StreamTable.from_tasks(train, labels),
            self.info,
        )
