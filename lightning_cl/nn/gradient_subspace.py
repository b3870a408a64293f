"""Follow the strongest directions of a weight's gradient, and keep a small sketch of where it has been (CoSO)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_cl.nn.subspace import Side, SubspaceMemory

#: Share of a gradient's energy below which a direction is rounding.
_ROUNDING = 1e-10


def shrunk_sketch(values: Tensor, vectors: Tensor, size: int) -> Tensor:
    """``(D, size)`` columns ``u_j sqrt(v_j - v_(size + 1))``: a step of frequent directions.

    Args:
        values: ``(D,)`` falling energies ``v``, squares of singular values.
        vectors: ``(D, D)`` their directions ``u``, as columns.
        size: Columns kept; from ``D`` on nothing is taken off.
    """
    least = values[size] if size < len(values) else values.new_zeros(())
    return vectors[:, :size] * (values[:size] - least).clamp_min(0).sqrt()


def with_fixed_signs(vectors: Tensor) -> Tensor:
    """Columns whose largest element is positive: a decomposition leaves the sign open, and so it is one anywhere."""
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -vectors, vectors)


class GradientSubspace(nn.Module):
    """A subspace that follows the gradient of one weight, outside those of earlier tasks (CoSO, arXiv:2505.11816).

    Args:
        outputs: Rows of the weight.
        inputs: Columns of the weight.
        rank: Directions that a step may use, ``r1``; at most as many as the side has.
        sketch: Directions that are kept of a task's gradients, ``r2``; the same.
        side: Of the weight: ``"out"`` (rows) as released, or ``"in"``.
    """

    directions: Tensor
    sketch: Tensor

    def __init__(self, outputs: int, inputs: int, rank: int, sketch: int, side: Side = "out") -> None:
        super().__init__()
        self.side = side
        width, other = (outputs, inputs) if side == "out" else (inputs, outputs)
        rank, sketch = min(rank, width), min(sketch, width)
        self.memory = SubspaceMemory(width)
        self.register_buffer("directions", torch.zeros(width, rank))
        self.register_buffer("sketch", torch.zeros(width, sketch, dtype=torch.float64))
        #: ``(rank, other side)`` zeros, which an optimiser moves in place of the weight.
        self.reduced = nn.Parameter(torch.zeros(rank, other))

    @torch.no_grad()
    def follow(self, gradient: Tensor, decay: float) -> None:
        """Take the strongest directions of a gradient, and count it in the sketch.

        Args:
            gradient: Of the weight's shape; the same on every process.
            decay: Of what the sketch has held so far, ``rho``, in [0, 1].
        """
        rows = self._turned(gradient).double()
        energy = rows.square().sum()
        if not bool(energy.isfinite()):  # a step that gradient scaling will leave out
            return
        values, vectors = self.memory.outside(rows @ rows.T)
        solid = values > _ROUNDING * energy
        found = with_fixed_signs(vectors) * solid  # no direction of rounding errors: Adam would make much of it
        self.directions.copy_(found[:, : self.directions.shape[1]])
        new, old = shrunk_sketch(values * solid, found, self.sketch.shape[1]), decay * self.sketch
        values, vectors = torch.linalg.eigh(old @ old.T + new @ new.T)
        found = with_fixed_signs(vectors.flip(1))
        self.sketch.copy_(shrunk_sketch(values.flip(0).clamp_min(0), found, self.sketch.shape[1]))

    @torch.no_grad()
    def reduce(self, gradient: Tensor) -> Tensor:
        """``(rank, other side)`` components ``P^T G = P^T G'`` of a gradient: ``P`` is outside of what tasks used."""
        return self.directions.T @ self._turned(gradient)

    @torch.no_grad()
    def step(self) -> Tensor:
        """What ``reduced`` has become, as a change of the weight; it is zero again then."""
        change = self.directions @ self.reduced
        self.reduced.zero_()
        return self._turned(change)

    @torch.no_grad()
    def end_task(self, energy: float) -> int:
        """Keep the directions that hold less than ``energy`` of the sketch out of later steps; how many are new."""
        new = self.memory.extend_gram(self.sketch @ self.sketch.T, energy)
        self.sketch.zero_()
        self.directions.zero_()
        return new

    def _turned(self, matrix: Tensor) -> Tensor:
        return matrix if self.side == "out" else matrix.T
