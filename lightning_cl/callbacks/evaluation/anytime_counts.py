"""Samples and moments of evaluations inside a run, and the answers given before training on a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.row_order import GivenTensors, in_order, order_of
from lightning_cl.callbacks.evaluation.task_counts import best_of, competitors
from lightning_cl.datamodules.sampling import permutation
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.metrics import GroupAccuracy


def next_evaluation(seen: int, due: int, every: int) -> int:
    """The number of samples at which the next evaluation is due, after one at ``seen >= due``: beyond ``seen``."""
    return due + every * ((seen - due) // every + 1)


def stratified_subset(labels: Tensor, index: Tensor, size: int, seed: int) -> Tensor:
    """Some of the samples, every class in proportion (largest remainders first) and at least once.

    Args:
        labels: ``(N_split,)`` label of every sample of a split.
        index: ``(N,)`` positions in the split to choose from.
        size: How many to choose, at least one for each class; with fewer samples than that, all are chosen.
        seed: Decides which.

    Returns:
        Sorted positions in the split.

    Raises:
        ValueError: If ``size`` is smaller than the number of classes.
    """
    classes, counts = labels[index].unique(return_counts=True)
    if size < len(classes):
        raise ValueError(
            f"`subset` is {size} but the evaluation data have {len(classes)} classes; give at least {len(classes)}, "
            "or `None` to evaluate on everything."
        )
    if size >= len(index):
        return index.sort().values
    exact = counts.double() * size / len(index)
    quota = exact.floor().long().clamp(min=1)
    while int(quota.sum()) != size:  # one at a time: where most is missing, or where most is too much
        gap = exact - quota
        if int(quota.sum()) < size:
            quota[gap.argmax()] += 1
        else:
            quota[torch.where(quota > 1, gap, torch.inf).argmin()] -= 1
    members = [index[labels[index] == c] for c in classes]
    chosen = [m.sort().values[permutation(len(m), seed, int(c))] for m, c in zip(members, classes, strict=True)]
    return torch.cat([m[:count] for m, count in zip(chosen, quota.tolist(), strict=True)]).sort().values


class PrequentialCounter:
    """Counts how often the training forward answers rightly, before the step learns from the batch.

    It reads the head's first answer in a step before the class mask, which may let only the batch's own classes
    compete, and lets the exposed classes compete.

    Args:
        capture: Knows the head.
        device: Where to count.
        info: Of the stream.
    """

    def __init__(self, capture: HeadCapture, device: torch.device, info: StreamInfo) -> None:
        self.path, self.layer, self.mask = capture.path, capture.layer, capture.mask
        self.info = info
        #: Of this process, since it was last taken.
        self.accuracy = GroupAccuracy(1).to(device)
        self._hook: Any = None
        self._logits: Tensor | None = None
        self._reading = GivenTensors(capture.readers)
        self._given: list[Tensor] = []  # to the network whose head answered
        self._allowed: tuple[tuple[int, ...], Tensor] | None = None

    def watch(self) -> None:
        """Keep the head's next answer, at the start of a step."""
        self.stop()
        self._reading.start()
        if self.mask is None:
            self._hook = self.layer.register_forward_hook(self._keep_output)
        else:
            self._hook = self.mask.register_forward_pre_hook(self._keep_input)

    def _keep_output(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        self._keep(output)

    def _keep_input(self, mask: nn.Module, args: tuple[Tensor]) -> None:
        self._keep(args[0])

    def _keep(self, logits: Tensor) -> None:
        given = self._reading.tensors
        self.stop()  # it is read once: a copy of the module that is made later has no hook
        self._logits, self._given = logits.detach(), given

    def stop(self) -> None:
        """Stop reading the head's answers."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._logits = None
        self._given = []
        self._reading.stop()

    def count(self, labels: Tensor, exposed: tuple[int, ...], batch: Any) -> None:
        """Count the answers for the first ``len(labels)`` rows of the step's batch.

        Without a device synchronisation, unless the step sorted or changed its batch.

        Args:
            labels: ``(B,)`` labels of this process's share of the stream batch; rows behind them (padding, replayed
                samples) do not count.
            exposed: Classes that compete, this batch's included.
            batch: As the step got it.

        Raises:
            RuntimeError: If the head was not called in the step, or answered for fewer rows.
        """
        logits, given = self._logits, self._given
        self.stop()
        if len(labels) == 0:
            return
        if logits is None or len(logits) < len(labels):
            found = "was not called" if logits is None else f"answered for {len(logits)} of {len(labels)} samples"
            raise RuntimeError(
                f"the head `{self.path}` {found} in a training step, so there is no prediction from before learning; "
                'set `prequential=False`, or name the layer that the step uses with `head="..."`.'
            )
        logits = in_order(logits, order_of(batch, given))
        if self._allowed is None or self._allowed[0] != exposed or self._allowed[1].device != logits.device:
            self._allowed = exposed, competitors(exposed, self.info, logits.shape[-1], logits.device)
        labels = labels.to(logits.device, non_blocking=True)
        answers = best_of(logits[: len(labels)], self._allowed[1], labels)
        self.accuracy.update(answers, labels, torch.zeros_like(answers))

    def take(self) -> Tensor:
        """``(2,)`` right answers and all samples of this process since the last time."""
        counts = torch.cat([self.accuracy.correct, self.accuracy.total])
        self.accuracy.reset()
        return counts
