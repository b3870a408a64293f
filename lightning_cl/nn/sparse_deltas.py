"""Sparse changes of a model's weights that add up, can be taken back, and are shipped without the model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, types and bits of weights, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SparseDelta:
    """What a task changed of a base model, at few places.

    Attributes:
        places: ``(n,)`` int32 flat positions in each changed weight, by name.
        values: ``(n,)`` what is added there, by name.
        base: :func:`weights_fingerprint` of the weights that it was made for.
    """

    places: dict[str, Tensor]
    values: dict[str, Tensor]
    base: str

    @classmethod
    def between(cls, before: Mapping[str, Tensor], after: Mapping[str, Tensor], base: str) -> SparseDelta:
        """The elements in which two sets of weights differ."""
        places, values = {}, {}
        for name, old in before.items():
            change = (after[name].detach() - old.detach()).flatten()
            found = change.nonzero().flatten()
            if len(found):
                places[name], values[name] = found.int().cpu(), change[found].cpu()
        return cls(places, values, base)

    @property
    def size(self) -> int:
        """How many elements are changed."""
        return sum(map(len, self.places.values()))

    def save(self, path: str | Path) -> None:
        """Write it to a file of its own: 8 bytes an element in 32 bits."""
        torch.save({"version": 1, "places": self.places, "values": self.values, "base": self.base}, path)

    @classmethod
    def load(cls, path: str | Path) -> SparseDelta:
        """Read it back.

        Raises:
            ValueError: If the file holds something else.
        """
        found: Any = torch.load(path, weights_only=True)
        if not isinstance(found, dict) or found.get("version") != 1 or not {"places", "values", "base"} <= set(found):
            raise ValueError(f"{str(path)!r} holds no sparse delta; give a file that `SparseDelta.save` wrote.")
        return cls(found["places"], found["values"], found["base"])


def compose(base: Mapping[str, Tensor], deltas: Sequence[tuple[SparseDelta, float]]) -> dict[str, Tensor]:
    """``theta_0 + sum_t weight_t phi_t`` from the base weights, in the given order; new tensors.

    A delta whose weights have the sum 0 leaves no trace, so adding it and taking it back gives the same bits.

    Args:
        base: The weights that the deltas were made for, by name.
        deltas: Each with its weight: 1 adds it, -1 subtracts it.

    Raises:
        ValueError: If a delta was made for other weights; both fingerprints are in the message.
    """
    own = weights_fingerprint(base)
    strange = [delta.base for delta, _ in deltas if delta.base != own]
    if strange:
        raise ValueError(
            f"the delta was made for a base model with the fingerprint {strange[0]}, but this one has {own}; load the "
            "weights that its training began with, or train the delta anew on these."
        )
    found = {name: weight.detach().clone() for name, weight in base.items()}
    known = {id(delta): delta for delta, _ in deltas}
    for key, delta in known.items():
        weight = sum(weight for other, weight in deltas if id(other) == key)
        for name, places in delta.places.items() if weight else ():
            values = delta.values[name].to(found[name])
            found[name].view(-1).index_add_(0, places.to(found[name].device), values, alpha=weight)
    return found


def largest_changes(
    changes: Mapping[str, Tensor],
    count: int,
    among: Mapping[str, Tensor] | None = None,
    ties: Literal["first", "all"] = "first",
) -> dict[str, Tensor]:
    """Masks of the ``count`` elements of all tensors together that are largest by magnitude (LT-SFT, arXiv:2110.07560).

    Args:
        changes: Any shapes, by name.
        count: At least 1; fewer are chosen where there are not so many.
        among: Boolean, of the same shapes: which may be chosen; ``None``: all.
        ties: Of elements as large as the smallest chosen one those that come ``"first"``, exactly ``count`` together,
            or ``"all"``, as the released code does.
    """
    sizes = {name: change.detach().abs().float() for name, change in changes.items()}
    if among is not None:
        sizes = {name: size.masked_fill(~among[name], -1.0) for name, size in sizes.items()}
    flat = torch.cat([size.flatten() for size in sizes.values()])
    order = flat.sort(descending=True, stable=True)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    count = min(count, int((flat >= 0).sum()))
    if count:
        chosen[order.indices[:count]] = True
        if ties == "all":
            chosen |= flat == order.values[count - 1]
    parts = chosen.split([size.numel() for size in sizes.values()])
    return {name: part.view_as(sizes[name]) for name, part in zip(sizes, parts, strict=True)}
