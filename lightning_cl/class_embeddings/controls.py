"""Targets without language, which every claim about language must beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_cl.class_embeddings.base import TargetProvider, drawn


class RandomTargets(TargetProvider):
    """Random directions, one for each name.

    Args:
        dim: Length of the vectors.
        seed: Decides them, together with the names.
    """

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        self.size, self.seed = _positive(dim), seed

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.size

    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` unit vectors."""
        return drawn(names, self.size, self.seed)


class _ByArrival(TargetProvider):
    """Rows of a fixed matrix in the order in which classes arrive."""

    def __init__(self, dim: int, seed: int) -> None:
        self.size, self.seed = _positive(dim), seed
        self._given: dict[str, int] = {}

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.size

    def _rows(self) -> Tensor:
        """``(K, dim)`` rows, for at most ``K`` classes."""
        raise NotImplementedError

    def skip(self, names: Sequence[str]) -> None:
        """These classes have theirs already, as after a resume: the next name gets the next row."""
        for name in names:
            self._given.setdefault(name, len(self._given))

    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` unit vectors.

        Raises:
            ValueError: If there are more names than rows.
        """
        self.skip(names)
        rows = self._rows()
        if len(self._given) > len(rows):
            raise ValueError(
                f"{type(self).__name__}(dim={self.size}) has {len(rows)} different rows but there are "
                f"{len(self._given)} classes; raise `dim`."
            )
        return rows[[self._given[name] for name in names]]


class OrthogonalTargets(_ByArrival):
    """Orthogonal directions, for at most ``dim`` classes.

    Args:
        dim: Length of the vectors, at least the number of classes.
        seed: Decides them.
    """

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        super().__init__(dim, seed)

    def _rows(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        q: Tensor = torch.linalg.qr(torch.randn(self.size, self.size, generator=generator, dtype=torch.float64))[0]
        return q.T.float()


class SimplexTargets(_ByArrival):
    """Equiangular tight frame (simplex): all pairs of ``classes`` vectors at the same, largest possible angle.

    Args:
        classes: Number of classes of the whole stream.
        dim: Length of the vectors, at least ``classes``.
        seed: Decides the rotation.
    """

    def __init__(self, classes: int, dim: int = 512, seed: int = 0) -> None:
        super().__init__(dim, seed)
        if not 2 <= classes <= dim:
            raise ValueError(f"`classes` is {classes} and `dim` is {dim}; give 2 <= classes <= dim.")
        self.classes = classes

    def _rows(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        q: Tensor = torch.linalg.qr(torch.randn(self.size, self.classes, generator=generator, dtype=torch.float64))[0]
        k = self.classes
        frame: Tensor = (k / (k - 1)) ** 0.5 * q @ (torch.eye(k, dtype=torch.float64) - 1 / k)
        return frame.T.float()


def _positive(dim: int) -> int:
    if dim < 1:
        raise ValueError(f"`dim` is {dim}; give the length of the vectors, at least 1.")
    return dim
