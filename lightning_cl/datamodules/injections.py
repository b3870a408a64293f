"""Items put into known batches of a stream: a fact is read at exactly the steps that were planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def injection_steps(start: int, count: int, interval: int) -> list[int]:
    """``count`` batches, ``interval`` apart, from batch ``start`` on (from 0).

    Raises:
        ValueError: If one is out of its range: below 0 for ``start``, below 1 for the others.
    """
    if start < 0 or count < 1 or interval < 1:
        raise ValueError(f"{start=}, {count=}, {interval=}; give a batch of at least 0, and at least 1 for the others.")
    return [start + interval * number for number in range(count)]


def injected(items: Sequence[Item], batches: Mapping[int, Sequence[Item]], batch_size: int) -> list[Item]:
    """Items in their order, with others at the front of some batches; what they push aside comes in the next batch.

    With the scenario ``SampleIncremental(1, order="stream")`` and this batch size, each of them is read in its batch
    and in no other: after a resume, too, and on any number of processes, whose batches are together one of this size.

    Args:
        items: What is read otherwise.
        batches: Batch, from 0, to what is put into it.
        batch_size: Of all processes together.

    Raises:
        ValueError: If a batch is asked to hold more than its size, or the items end before it.
    """
    rest, found = iter(items), list[Item]()
    for batch in sorted(batches):
        own = batches[batch]
        found += islice(rest, batch * batch_size - len(found))
        if len(own) > batch_size or len(found) != batch * batch_size:
            raise ValueError(
                f"{len(own)} items are to be put into batch {batch}, but batches have {batch_size} items and those "
                f"before it would have {len(found)}; give fewer items or another batch."
            )
        found += own
    return [*found, *rest]
