"""Rows of nested batches (tuples, lists, dictionaries): taking, joining and gathering them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_cl.sample_list import SampleList, first_device, owned

_PLAIN = (str, bytes, int, float, type(None))


def is_list_leaf(part: Any) -> bool:
    """Whether a part of a batch is a list with an entry per row: of plain values, as strings, or a ``SampleList``."""
    listed = isinstance(part, (list, tuple))
    return isinstance(part, SampleList) or (listed and all(isinstance(value, _PLAIN) for value in part))


def leaves(batch: Any, path: str = "batch") -> Iterator[tuple[str, Any]]:
    """Paths (as one would write them) and leaves of a batch, in order."""
    if isinstance(batch, Mapping):
        for key, part in batch.items():
            yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(batch, (list, tuple)) and not is_list_leaf(batch):
        for number, part in enumerate(batch):
            yield from leaves(part, f"{path}[{number}]")
    else:
        yield path, batch


def map_leaves(function: Callable[..., Any], batch: Any, *others: Any, path: str = "batch", plain: bool = False) -> Any:
    """A batch of the same structure with ``function(path, leaf, *other_leaves)`` for every leaf.

    Args:
        function: Makes the new leaf.
        batch: Gives the structure.
        others: Batches of the same structure; named tuples may be plain ones there.
        path: How the batch is called in errors.
        plain: Make dictionaries, tuples and lists of whatever mappings and sequences there are.

    Raises:
        ValueError: If the structures differ.
    """
    if isinstance(batch, Mapping):
        for other in others:
            if not isinstance(other, Mapping) or other.keys() != batch.keys():
                raise ValueError(_differs(path, batch, other))
        made = {
            key: map_leaves(function, part, *(other[key] for other in others), path=f"{path}[{key!r}]", plain=plain)
            for key, part in batch.items()
        }
        return made if plain or type(batch) is dict else type(batch)(made)  # type: ignore[call-arg]
    if isinstance(batch, (list, tuple)) and not is_list_leaf(batch):
        for other in others:
            if not isinstance(other, (list, tuple)) or len(other) != len(batch):
                raise ValueError(_differs(path, batch, other))
        parts = [
            map_leaves(function, part, *(other[n] for other in others), path=f"{path}[{n}]", plain=plain)
            for n, part in enumerate(batch)
        ]
        if isinstance(batch, list):
            return parts
        return type(batch)(*parts) if hasattr(batch, "_fields") and not plain else tuple(parts)
    return function(path, batch, *others)


def take(batch: Any, rows: Tensor) -> Any:
    """Copies of the given rows (``(n,)`` int64, on the CPU) of every leaf."""

    def pick(path: str, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf[rows.to(leaf.device, non_blocking=True)]
        chosen = [leaf[row] for row in rows.tolist()]
        return owned(chosen) if isinstance(leaf, SampleList) else chosen

    return map_leaves(pick, batch)


def stacks(batch: Any) -> bool:
    """Whether no part of a batch is a :class:`~lightning_cl.sample_list.SampleList`."""
    return not any(isinstance(leaf, SampleList) for _, leaf in leaves(batch))


def check_rows(batch: Any, count: int) -> None:
    """See that every leaf has one entry for each of ``count`` samples.

    Raises:
        ValueError: Naming the first leaf that has not.
    """
    for path, leaf in leaves(batch):
        listed = is_list_leaf(leaf)
        if not isinstance(leaf, Tensor) and not listed:
            found = f"a {type(leaf).__name__}"
        elif listed and len(leaf) != count:
            found = f"a list of {len(leaf)} values"
        elif isinstance(leaf, Tensor) and (leaf.ndim == 0 or len(leaf) != count):
            found = f"a tensor of shape {tuple(leaf.shape)}"
        else:
            continue
        raise ValueError(
            f"`{path}` is {found}, but replay needs one row for each of the {count} samples of a batch, in a tensor or "
            "a list; leave it out of the batch, or repeat it for every sample."
        )


def check_alike(path: str, one: Tensor, other: Any) -> None:
    """See that the rows of two tensors fit into one.

    Raises:
        ValueError: If shape or type differ.
    """
    if not isinstance(other, Tensor):
        raise ValueError(_differs(path, one, other))
    if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
        raise ValueError(
            f"`{path}` has rows of shape {tuple(one.shape[1:])} and type {one.dtype} in the stream, but "
            f"{tuple(other.shape[1:])} and {other.dtype} in the memory, so they cannot be one batch; let the "
            "transform give all samples one size."
        )


def join(first: Any, second: Any) -> Any:
    """One batch with the rows of the second behind those of the first; structure and types of the first.

    Raises:
        ValueError: If they do not fit together; the message names the leaf.
    """

    def put_behind(path: str, one: Any, other: Any) -> Any:
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            check_alike(path, one, other)
            return torch.cat([one, other.to(one.device, non_blocking=True)])
        if isinstance(one, SampleList) and isinstance(other, SampleList):
            place = first_device(one)
            return SampleList([*one, *(other if place in (None, first_device(other)) else owned(other, place))])
        if is_list_leaf(one) and is_list_leaf(other):
            return type(one)([*one, *other])
        raise ValueError(_differs(path, one, other))

    return map_leaves(put_behind, first, second)


def gather_rows_of(batch: Any, sizes: Sequence[int]) -> Any:
    """The rows of all processes, in the order of their ranks, bit for bit; without processes the batch itself.

    Args:
        batch: This process' rows.
        sizes: How many rows each process has (known to all, so nothing waits for the device).
    """
    if len(sizes) == 1:
        return batch

    def gather(path: str, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return _gather_tensor(leaf, sizes)
        parts: list[Any] = [None] * len(sizes)
        if isinstance(leaf, SampleList):  # by the CPU: tensors of a device come back on the device of that number
            torch.distributed.all_gather_object(parts, owned(leaf, torch.device("cpu")))
            return owned((value for part in parts for value in part), first_device(leaf))
        torch.distributed.all_gather_object(parts, leaf)
        return [value for part in parts for value in part]

    return map_leaves(gather, batch)


def _gather_tensor(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """As bytes, since processes exchange every type that way."""
    width = rows[0].numel() * rows.element_size() if len(rows) else _row_bytes(rows)
    packed = torch.zeros(max(sizes), width, dtype=torch.uint8, device=rows.device)
    packed[: len(rows)] = rows.contiguous().flatten().view(torch.uint8).view(len(rows), width)
    parts = [torch.empty_like(packed) for _ in sizes]
    torch.distributed.all_gather(parts, packed)
    joint = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return joint.flatten().view(rows.dtype).view(sum(sizes), *rows.shape[1:])


def _row_bytes(rows: Tensor) -> int:
    return rows[:0].new_empty(1, *rows.shape[1:]).numel() * rows.element_size()


def _differs(path: str, one: Any, other: Any) -> str:
    return f"`{path}` is {_shown(one)} in the stream, but {_shown(other)} in the memory, so they cannot be one batch."


def _shown(part: Any) -> str:
    if isinstance(part, Mapping):
        return f"a dictionary with the keys {sorted(map(str, part))}"
    size = f" of {len(part)}" if isinstance(part, (list, tuple)) else ""
    return f"a {type(part).__name__}{size}"
