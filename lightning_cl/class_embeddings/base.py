"""The base of all that gives vectors for class names, and the checks that they share."""

from __future__ import annotations

import hashlib
import string
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class TargetProvider(ABC):
    """Gives each class name a vector; asked once for every class, when it arrives.

    Construction does no input or output, so that a trained model is rebuilt without the text model: the vectors are in
    the checkpoint.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of the vectors."""

    @abstractmethod
    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` float32 vectors on the CPU, of any length but not zero; deterministic, row by row.

        Raises:
            ValueError: If a name has no vector.
        """

    def joint(self, names: Sequence[str]) -> Tensor:
        """``(dim,)`` unit vector of several classes together: of a text that names them all, where there is one.

        By default the mean of the classes' unit vectors.
        """
        return unit_mean(self.targets(names))

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, where they are plain values, for reports."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def normal_name(name: str) -> str:
    """Lower case, underscores and hyphens as spaces, trimmed: how names are compared."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def fill(templates: Sequence[str], name: str) -> list[str]:
    """The name in each template, underscores as spaces.

    Raises:
        ValueError: If a template has not exactly one placeholder ``{}``.
    """
    for template in templates:
        check_template(template)
    return [template.format(name.replace("_", " ")) for template in templates]


def check_template(template: str) -> None:
    """Raise a ``ValueError`` if the template has not exactly one placeholder ``{}``."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError:
        fields = []
    if fields != [""]:
        raise ValueError(
            f"the template {template!r} has no placeholder for the class name; put one `{{}}` into it, as in "
            '"a photo of a {}."'
        )


def check_targets(targets: Tensor, names: Sequence[str], threshold: float = 0.999) -> None:
    """Refuse vectors that no head can be made of.

    Args:
        targets: ``(n, dim)`` of the classes ``names``.
        names: For the message.
        threshold: Largest cosine between two classes; above 0.95 there is a warning.

    Raises:
        ValueError: If a value is not finite, a vector is zero, or two classes (nearly) have the same one.
    """
    bad = (~targets.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"the target of the class {names[bad[0]]!r} is not finite; check where the targets come from.")
    zero = (targets.norm(dim=1) == 0).nonzero().flatten().tolist()
    if zero:
        raise ValueError(f"the target of the class {names[zero[0]]!r} is zero, so it has no direction; give another.")
    if len(names) < 2:
        return
    rows = F.normalize(targets.double(), dim=1)
    cosines = (rows @ rows.T).fill_diagonal_(-1.0)
    largest, at = cosines.flatten().max(0)
    first, second = sorted(divmod(int(at), len(names)))
    if float(largest) > threshold:
        raise ValueError(
            f"the classes {names[first]!r} and {names[second]!r} have the same target (cosine {float(largest):.4f}), "
            "so no head can tell them apart; give them names that differ, such as 'crane (bird)'."
        )
    if float(largest) > 0.95:
        warnings.warn(
            f"the targets of {names[first]!r} and {names[second]!r} are very close (cosine {float(largest):.3f}); they "
            "will be hard to tell apart.",
            stacklevel=2,
        )


def seed_of(name: str, seed: int) -> int:
    """A seed that belongs to a class name, the same on every machine and whatever other classes there are."""
    return int.from_bytes(hashlib.sha256(f"{seed} {normal_name(name)}".encode()).digest()[:7], "little")


def unit_mean(rows: Tensor) -> Tensor:
    """``(k, dim)`` vectors of several templates to one: the mean of the unit vectors, scaled to unit length (CLIP)."""
    return F.normalize(F.normalize(rows, dim=1).mean(0), dim=0)


def drawn(names: Sequence[str], dim: int, seed: int) -> Tensor:
    """``(n, dim)`` unit vectors, each drawn from the seed of its own name."""
    rows = [torch.randn(dim, generator=torch.Generator().manual_seed(seed_of(name, seed))) for name in names]
    return F.normalize(torch.stack(rows), dim=1)
