"""How well boundaries of a stream were found that nobody told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class BoundaryScore(NamedTuple):
    """Of found boundaries against the true ones.

    Attributes:
        delay: Mean distance from a change to the first answer before the next change; NaN if none was found.
        missed: Changes without an answer before the next one.
        false_alarms: Answers that are not the first ones behind a change, those before the first change included.
    """

    delay: float
    missed: int
    false_alarms: int


def boundary_score(found: Sequence[int], changes: Sequence[int]) -> BoundaryScore:
    """Compare found with true boundaries.

    Args:
        found: Places in the stream (batches, say) at which a boundary was announced, rising.
        changes: Places at which the distribution changed, rising; the start of the stream is none.

    Raises:
        ValueError: If there is no change, or places do not rise.
    """
    for name, places in (("found", found), ("changes", changes)):
        if any(b <= a for a, b in pairwise(places)):
            raise ValueError(f"`{name}` is {list(places)[:10]}; give places that rise.")
    if not changes:
        raise ValueError("`changes` is empty, so there is no boundary to find; give at least one.")
    ends = [*changes[1:], float("inf")]
    first = [next((p for p in found if start <= p < end), None) for start, end in zip(changes, ends, strict=True)]
    delays = [p - start for p, start in zip(first, changes, strict=True) if p is not None]
    mean = sum(delays) / len(delays) if delays else float("nan")
    return BoundaryScore(mean, len(changes) - len(delays), len(found) - len(delays))
