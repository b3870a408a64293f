"""The record of a checked protocol: what was compared, what came out, and whether the numbers can be trusted.

:class:`~lightning_cl.callbacks.ProtocolGuard` measures and judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Result = Literal["pass", "fail", "not checked"]
#: Every check and what it says when it passes, in the order of the card.
CHECKS: dict[str, str] = {
    "batch size": "a prediction does not depend on how many samples are in its batch",
    "batch order": "a prediction does not depend on its place in the batch",
    "batch mates": "a prediction does not depend on which tasks the other samples of its batch are of",
    "task identity": "no method is told the task of a test sample",
    "claimed task": "a prediction does not depend on the task that the stream says is current",
    "labels": "a prediction does not depend on labels or task ids in the batch",
    "repetition": "two evaluations give the same predictions",
    "remembered features": "features remembered from earlier evaluations give the predictions of fresh ones",
    "answers": "the module answers with the head that the accuracies are read from",
    "unseen classes": "no class is predicted of which no sample was seen",
    "unseen rows": "training leaves the head's rows of unseen classes alone",
    "state": "evaluating changes no weight and no buffer",
    "random numbers": "evaluating draws no random number",
    "selection": "nothing is chosen by results on the test split",
    "overlap": "no evaluation sample is trained on",
    "hidden labels": "no label reaches the training of a task that has none",
    "duplicates": "no evaluation image is a copy of a training image",
    "tuning": "hyperparameters were chosen on other data",
}
_WORST: tuple[Result, ...] = ("not checked", "pass", "fail")


class ProtocolError(ValueError):
    """The evaluation protocol is violated; the message says how and what to do."""


@dataclass(frozen=True)
class Check:
    """What one check found, at one or at several task boundaries.

    Attributes:
        name: One of :data:`CHECKS`.
        result: ``"pass"``, ``"fail"`` or ``"not checked"``.
        compared: What was compared.
        message: For a failure what is wrong and how to repair it; else a remark, or why nothing was checked.
        numbers: The measurement: the largest seen so far, by name.
        tasks: Tasks after which it was checked; empty for a check of the run as a whole.
        violated: Those of them after which it failed.
    """

    name: str
    result: Result
    compared: str = ""
    message: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    tasks: tuple[int, ...] = ()
    violated: tuple[int, ...] = ()

    def after(self, task: int) -> Check:
        """Date a check: it was made after ``task``."""
        checked = () if self.result == "not checked" else (task,)
        return replace(self, tasks=checked, violated=(task,) if self.result == "fail" else ())


def verdict(
    name: str, compared: str, fault: str = "", numbers: Mapping[str, float] | None = None, remark: str = ""
) -> Check:
    """A check that failed if there is a ``fault``, and else passed with a remark; see :class:`Check`."""
    return Check(name, "fail" if fault else "pass", compared, fault or remark, numbers or {})


def merge(earlier: Check, later: Check) -> Check:
    """Join two findings of a check: the first failure is kept, else the later one; numbers are the largest."""
    worse = max(earlier.result, later.result, key=_WORST.index)
    speaker = later if later.result == worse and not earlier.result == worse == "fail" else earlier
    names = [*earlier.numbers, *(n for n in later.numbers if n not in earlier.numbers)]
    known = (earlier.numbers, later.numbers)
    return replace(
        speaker,
        numbers={name: max(numbers[name] for numbers in known if name in numbers) for name in names},
        tasks=tuple(sorted({*earlier.tasks, *later.tasks})),
        violated=tuple(sorted({*earlier.violated, *later.violated})),
    )


@dataclass(frozen=True)
class ProtocolCard:
    """All checks of a run, in the order of :data:`CHECKS`."""

    checks: tuple[Check, ...] = ()

    def __post_init__(self) -> None:
        order = {name: place for place, name in enumerate(CHECKS)}
        object.__setattr__(self, "checks", tuple(sorted(self.checks, key=lambda c: order.get(c.name, len(order)))))

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def add(self, found: Iterable[Check]) -> ProtocolCard:
        """The card with more findings."""
        checks = {check.name: check for check in self.checks}
        for check in found:
            checks[check.name] = merge(checks[check.name], check) if check.name in checks else check
        return ProtocolCard(tuple(checks.values()))

    @property
    def violations(self) -> list[Check]:
        """Checks that failed."""
        return [check for check in self.checks if check.result == "fail"]

    def notes(self) -> list[str]:
        """What a reader of the results must know: how many checks passed, and every violation."""
        count = {result: sum(c.result == result for c in self.checks) for result in _WORST}
        if not self.checks:
            return []
        verdict = f"protocol: {count['pass']} checks passed, {count['fail']} failed, {count['not checked']} not made"
        return [verdict, *(f"protocol violated, {c.name}: {c.message}" for c in self.violations)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what :meth:`from_dict` reads."""
        checks = [{**asdict(c), "tasks": list(c.tasks), "violated": list(c.violated)} for c in self.checks]
        return {"version": 1, "checks": checks}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ProtocolCard:
        """Inverse of :meth:`to_dict`."""
        return cls(tuple(_check(check) for check in content["checks"]))


def _check(saved: Mapping[str, Any]) -> Check:
    numbers = {n: float(v) if isinstance(v, str) else v for n, v in saved["numbers"].items()}  # "Infinity"
    return Check(**{**saved, "numbers": numbers, "tasks": tuple(saved["tasks"]), "violated": tuple(saved["violated"])})
