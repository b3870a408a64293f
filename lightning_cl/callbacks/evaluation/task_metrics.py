"""A torchmetrics metric of each task, in one evaluation after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.module_answers import kind_of
from lightning_cl.callbacks.evaluation.row_order import GivenTensors, order_of
from lightning_cl.datamodules.batch_form import BatchKeys, find_places, part_at
from lightning_cl.datamodules.stream_plan import EvalBatch
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.metrics import class_table
from lightning_cl.namespace import move_data_to_device
from lightning_cl.nn.distributed import all_sum
from lightning_cl.training.batch import unpack

#: Where the answer is in what a network returns that is a dictionary or an object.
_ANSWERS = ("preds", "predictions", "logits", "out")
_TARGETS = ("target", "targets")
_HOW = (
    'return {"preds": ..., "target": ...} from `validation_step` as the metric takes them, or give '
    "`ContinualEvaluation(answers=...)`, a function of (module, batch, what the step returned), that returns (preds, "
    "target)"
)
#: One update of a task's metric.
_Update = tuple[int, Any, Any]


def rows_of(part: Any, rows: Tensor) -> Any:
    """The given rows of a tensor, of a list with an entry for each sample, or of a dictionary of such.

    Raises:
        ValueError: If it is of another kind.
    """
    if isinstance(part, Tensor) and part.ndim:
        return part[rows.to(part.device)]
    if isinstance(part, Mapping):
        return {name: rows_of(value, rows) for name, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [part[row] for row in rows.tolist()]
    raise ValueError(f"{kind_of(part)} has no row for each sample; {_HOW}.")


def metric_value(computed: Any, key: str | None, name: str) -> float:
    """The one number that a metric's ``compute`` gave, at a key where it gave several.

    Args:
        computed: What it gave.
        key: Which of a dictionary's values; ``None``: the first.
        name: Of the metric, for the message.

    Raises:
        ValueError: If there is no such key, or the value is not one number.
    """
    if isinstance(computed, Mapping):
        key = next(iter(computed)) if key is None else key
        if key not in computed:
            known = ", ".join(map(repr, computed))
            raise ValueError(f"`metric_key` is {key!r}, but {name} gives {known}; name one of them.")
        computed = computed[key]
    found = torch.as_tensor(computed)
    if found.numel() != 1:
        raise ValueError(
            f"{name} gives {found.numel()} values of shape {tuple(found.shape)}, but a cell of the matrix is one "
            'number; let it average them (`average="macro"`), or name one value with `metric_key`.'
        )
    return float(found)


class TaskMetrics:
    """Updates one copy of a metric for each task.

    What the metric is given: what ``answers`` stated; else what the step returned as ``preds`` (and ``target``); else
    the logits of the head where the batch's targets are class ids of the stream, those of classes not seen at -inf;
    else what the module's ``forward`` answered. Targets are the batch's own, where none are returned. Where the step
    sorted its batch, what it answered and returned is put back as the samples stand in the batch.

    Args:
        pl_module: The module that is evaluated.
        info: Of its stream.
        metric: Any torchmetrics metric.
        key: Which of its values counts; see :func:`metric_value`.
        head: Dotted path of the head; found when ``None``.
        stated: What gives predictions and targets, from the module, a batch and what the step returned.

    Raises:
        ValueError: If ``head`` is given and cannot be found.
    """

    def __init__(
        self,
        pl_module: nn.Module,
        info: StreamInfo,
        metric: Metric,
        key: str | None = None,
        head: str | None = None,
        stated: Callable[[Any, Any, Any], Any] | None = None,
    ) -> None:
        self.name, self._key, self._stated, self._module = type(metric).__name__, key, stated, pl_module
        self._metrics: list[Metric] = [metric.clone() for _ in range(info.num_tasks)]
        self._capture = self._head(info, head)
        self._seen = torch.empty(0)
        self._answers: list[Any] = []
        self._given = GivenTensors([pl_module, *pl_module.children()], all_calls=True)
        self._hook: Any = None
        self._totals = torch.zeros(info.num_tasks, dtype=torch.long)
        #: Updates of every batch, where metrics collect what they are given: processes have different numbers of them.
        self._kept: list[list[_Update]] | None = None

    def _head(self, info: StreamInfo, head: str | None) -> HeadCapture | None:
        if not info.has_classes or self._stated is not None:
            return None
        try:
            return HeadCapture(self._module, info.num_classes, head)
        except ValueError:
            if head is not None:
                raise
            return None

    def start(self, classes: Sequence[int], device: torch.device, world_size: int) -> None:
        """Begin to listen and to count.

        Args:
            classes: Those that compete, where logits of the head are measured.
            device: Of the module.
            world_size: Number of processes.
        """
        self.stop()
        for metric in self._metrics:
            metric.to(device).reset()
        collects = any(isinstance(state, list) for state in self._metrics[0].metric_state.values())
        self._kept = [] if collects and world_size > 1 else None
        self._totals.zero_()
        self._hook = self._module.register_forward_hook(self._keep)
        self._given.start()
        if self._capture is not None:
            self._capture.start()
            self._seen = class_table([classes], self._capture.layer.out_features, device)[0]

    def stop(self) -> None:
        """Stop listening."""
        if self._capture is not None:
            self._capture.stop()
        if self._hook is not None:
            self._hook.remove()
        self._answers, self._hook = [], None
        self._given.stop()

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self._answers.append(output)

    def add(self, batch: Any, outputs: Any, samples: EvalBatch, keys: BatchKeys | None = None) -> None:
        """Update the metrics of a batch's tasks.

        Args:
            batch: As the module got it.
            outputs: What its step returned.
            samples: Of the batch, without padding.
            keys: Places of inputs and targets, if the user named them.

        Raises:
            ValueError: If there is no prediction or target, or the metric cannot take them.
        """
        updates: list[_Update] = []
        if len(samples.labels):
            preds, target = self._found(batch, outputs, samples, keys)
            for task, rows in _by_task(samples.tasks):
                updates.append((task, rows_of(preds, rows), rows_of(target, rows)))
                self._totals[task] += len(rows)
        self._answers = []
        self._given.clear()
        if self._kept is not None:
            self._kept.append([move_data_to_device(update, torch.device("cpu")) for update in updates])
            return
        for update in updates:
            self._update(*update)

    def _found(self, batch: Any, outputs: Any, samples: EvalBatch, keys: BatchKeys | None) -> tuple[Any, Any]:
        """Predictions and targets of a batch, at least as many as there are samples."""
        if self._stated is not None:
            given = self._stated(self._module, batch, outputs)
            if not isinstance(given, (tuple, list)) or len(given) != 2:
                raise ValueError(f"`answers` gave {kind_of(given)} for {self.name}; expected a pair (preds, target).")
            return given[0], given[1]
        returned = _at(outputs, _ANSWERS[:2])
        if returned is None and self._capture is not None and _are_class_ids(batch, keys):
            logits = self._capture.take(len(samples.labels), batch)
            return logits.masked_fill(~self._seen, -torch.inf), samples.labels.to(logits.device)
        # With several processes the step itself is called as the module's `forward`.
        answer = next((found for found in reversed(self._answers) if found is not outputs), None)
        preds = _at(answer, _ANSWERS) if returned is None else returned
        if preds is None:
            raise ValueError(
                f"{self.name} has nothing to measure: `validation_step` returned {kind_of(outputs)} and `forward` was "
                f"{'not called' if answer is None else f'answered with {kind_of(answer)}'}; {_HOW}."
            )
        target = _at(outputs, _TARGETS) if isinstance(outputs, Mapping) else None
        order = order_of(batch, self._given.tensors)
        if self._as_given(preds, target, order, batch, outputs, keys):
            preds, target = _in_order(preds, order), _in_order(target, order)
        return _matched(preds, unpack(batch, keys)[1] if target is None else target)

    def _as_given(
        self, preds: Any, target: Any, order: Tensor | None, batch: Any, outputs: Any, keys: BatchKeys | None
    ) -> bool:
        """Whether answers stand as the network was given the samples; a step that sorts may have put them back."""
        if order is None:
            return False
        if target is None:
            return any(_equal(preds, _at(answer, _ANSWERS)) for answer in self._answers if answer is not outputs)
        place = find_places(batch, keys)[1]
        own = None if place is None else part_at(batch, place)
        return _equal(_in_order(target, order), own) and not _equal(target, own)

    def _update(self, task: int, preds: Any, target: Any) -> None:
        metric = self._metrics[task]
        preds, target = (move_data_to_device(part, metric.device) for part in (preds, target))
        try:
            metric.update(preds, target)
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            raise ValueError(
                f"{self.name} cannot take what the evaluation gave it, preds of {kind_of(preds)} and target of "
                f"{kind_of(target)} ({str(error).partition(chr(10))[0]}); {_HOW}."
            ) from error

    def finish(self) -> tuple[Tensor, Tensor]:
        """``(T,)`` float64 values, NaN for a task without samples, and ``(T,)`` int64 samples, over all processes."""
        self.stop()
        totals = all_sum(self._totals.to(self._metrics[0].device)).cpu()
        if self._kept is not None:
            self._take_all()
        values = torch.full((len(self._metrics),), torch.nan, dtype=torch.float64)
        for task in totals.nonzero().flatten().tolist():
            with warnings.catch_warnings():  # this process may have had no sample of the task
                warnings.filterwarnings("ignore", message=".*was called before the ``update`` method")
                values[task] = metric_value(self._metrics[task].compute(), self._key, self.name)
        return values, totals

    def _take_all(self) -> None:
        """Make the updates of all processes, in the order in which one process makes them."""
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, self._kept)
        for metric in self._metrics:
            metric.sync_on_compute = False
        for batches in zip(*parts, strict=True):
            for updates in batches:
                for update in updates:
                    self._update(*update)


def _equal(first: Any, second: Any) -> bool:
    """Whether two are the same tensor, or tensors of the same values."""
    both = isinstance(first, Tensor) and isinstance(second, Tensor)
    return first is second or (both and torch.equal(first, second.to(first.device)))


def _in_order(part: Any, order: Tensor | None) -> Any:
    """As the samples stand in the batch, if the part has a row for each of them."""
    sized = order is not None and isinstance(part, (Tensor, list, tuple)) and len(part) == len(order)
    return rows_of(part, order) if sized and order is not None else part


def _by_task(tasks: Tensor) -> Iterator[tuple[int, Tensor]]:
    for task in tasks.unique().tolist():
        yield task, (tasks == task).nonzero().flatten()


def _at(value: Any, names: Sequence[str]) -> Any:
    """The part of a dictionary or an object that has one of the names; a tensor or a list is the part itself."""
    for name in names:
        found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if found is not None:
            return found
    whole = isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.ndim > 0)
    return value if whole else None


def _are_class_ids(batch: Any, keys: BatchKeys | None) -> bool:
    """Whether a batch has one integer target for each sample."""
    _, place = find_places(batch, keys)
    target = None if place is None else part_at(batch, place)
    return isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()


def _matched(preds: Any, target: Any) -> tuple[Any, Any]:
    """A regression's ``(B, 1)`` predictions of ``(B,)`` targets without their second dimension."""
    both = isinstance(preds, Tensor) and isinstance(target, Tensor) and target.is_floating_point()
    return (preds.squeeze(-1) if both and preds.shape == (*target.shape, 1) else preds), target
