"""Judge measurements of a protocol: how far predictions are apart, and what is done with unseen classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_cl.reports.protocol import Check, verdict


@dataclass(frozen=True)
class Tolerance:
    """What rounding may do to logits when kernels change with the shape of a batch.

    Attributes:
        relative: Difference of a logit, relative to the largest finite logit.
        outliers: Fraction of samples that may differ by more: in 16 bit a rounding can flip a discrete choice.
    """

    relative: float
    outliers: float = 0.0

    @classmethod
    def of(cls, dtype: torch.dtype, precision: str = "", device_type: str = "cpu") -> Tolerance:
        """For logits of a dtype, a Trainer's ``precision`` and a kind of device."""
        if dtype == torch.bfloat16 or "bf16" in precision:
            return cls(5e-2, 0.05)
        if dtype == torch.float16 or precision.startswith("16"):
            return cls(1e-2, 0.05)
        if dtype == torch.float64:
            return cls(1e-8)
        return cls(1e-4) if device_type == "cpu" else cls(2e-3, 0.05)  # TF32


@dataclass(frozen=True)
class Difference:
    """How far two sets of logits for the same samples are apart.

    Attributes:
        samples: Number of samples.
        moved: Samples with a logit beyond the tolerance.
        changed: Those of them that are now predicted as another class.
        largest: Largest difference of a logit, relative to the largest finite logit; inf if a logit is masked (-inf)
            on one side only.
    """

    samples: int
    moved: int
    changed: int
    largest: float

    def numbers(self) -> dict[str, float]:
        """For the card; the difference with two digits."""
        rounded = float(f"{self.largest:.1e}") if math.isfinite(self.largest) else self.largest
        return {"moved": self.moved, "changed": self.changed, "largest": rounded}


def compare(expected: Tensor, actual: Tensor, tolerance: Tolerance) -> Difference:
    """The difference of ``(N, C)`` logits; masked and NaN logits are equal to themselves.

    Raises:
        ValueError: If the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(f"logits of the shapes {tuple(expected.shape)} and {tuple(actual.shape)} cannot be compared.")
    a, b = expected.double(), actual.double()
    finite = a[a.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(same, 0.0, (a - b).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)) / (scale or 1.0)
    moved = (apart > tolerance.relative).any(dim=1)
    changed = moved & (a.nan_to_num(nan=-torch.inf).argmax(1) != b.nan_to_num(nan=-torch.inf).argmax(1))
    return Difference(len(a), int(moved.sum()), int(changed.sum()), float(apart.max()) if apart.numel() else 0.0)


def judge(name: str, difference: Difference, tolerance: Tolerance, compared: str, remedy: str) -> Check:
    """The check of a difference that should not be there."""
    moved = difference.moved > math.floor(tolerance.outliers * difference.samples)
    found = (
        f"the logits of {difference.moved} of {difference.samples} samples change (by up to "
        f"{difference.largest:.1e} of the largest logit), {difference.changed} of them to another class; "
    )
    return verdict(name, compared, found + remedy if moved else "", difference.numbers())


def unseen_classes(logits: Tensor, exposed: Iterable[int], masked: bool) -> Check:
    """Whether classes without a sample so far can be predicted.

    With a class mask every logit of an unseen class must be -inf. Without one (plain fine-tuning) the module's own
    accuracy counts them, which does no harm as long as none wins.

    Args:
        logits: ``(N, C)`` as the head answers, after all masks.
        exposed: Classes of which a sample was seen.
        masked: There is a class mask on the head.
    """
    name = "unseen classes"
    unseen = torch.ones(logits.shape[1], dtype=torch.bool)
    unseen[list(exposed)] = False
    if not bool(unseen.any()):
        return Check(name, "not checked", message="all classes of the head have been seen")
    answers = logits.cpu()
    open_columns = int((answers[:, unseen] != -torch.inf).any(dim=0).sum())
    won = int(unseen[answers.nan_to_num(nan=-torch.inf).argmax(1)].sum())
    numbers = {"columns": open_columns, "predicted": won}
    compared = f"{int(unseen.sum())} unseen columns of {len(answers)} samples' logits"
    if masked or open_columns == 0:
        found = (
            f"the class mask lets {open_columns} unseen classes through, and {won} of {len(answers)} samples are "
            "predicted as one; allow only `task.seen_classes` in the mask for evaluation."
        )
        return verdict(name, compared, found if open_columns else "", numbers)
    remark = "no mask on the head, but no unseen class won; the accuracy matrix masks them"
    found = (
        f"{won} of {len(answers)} samples are predicted as a class that was never seen: nothing masks the head, so "
        "the module's own accuracy and loss count untrained outputs (the accuracy matrix masks them); add a method, "
        "such as `FineTuning()`, which puts the mask on."
    )
    return verdict(name, compared, found if won else "", numbers, remark)


def unseen_rows(before: Tensor, after: Tensor, exposed: Iterable[int], train_mask: str | None) -> Check:
    """Whether training moved rows of the head that belong to classes without a sample so far.

    Args:
        before: ``(C,)`` fingerprints of the rows at the task's start, see :func:`row_fingerprints`.
        after: The same at its end.
        exposed: Classes of which a sample was seen by the end.
        train_mask: Which classes compete in the training loss; ``None``: nothing masks it.
    """
    name = "unseen rows"
    unseen = torch.ones(len(before), dtype=torch.bool)
    unseen[list(exposed)] = False
    if not bool(unseen.any()):
        return Check(name, "not checked", message="all classes of the head have been seen")
    moved = int((before.cpu() != after.cpu())[unseen].sum())
    compared, numbers = f"{int(unseen.sum())} rows, before and after the task", {"rows": moved}
    if moved == 0 or train_mask in ("task", "seen"):
        found = (
            f'{moved} rows moved although `train_mask="{train_mask}"` keeps their classes out of the loss; something '
            "writes to the head past the mask (an own loss term on its weight, or an own update)."
        )
        return verdict(name, compared, found if moved else "", numbers)
    why = {
        None: "nothing masks the training loss, so unseen classes are trained as negatives",
        "all": '`train_mask="all"`: unseen classes are trained as negatives',
        "batch": '`train_mask="batch"` protects no row, so weight decay and momentum move them',
    }
    return Check(name, "not checked", compared, why.get(train_mask, f"the training mask is {train_mask!r}"), numbers)
