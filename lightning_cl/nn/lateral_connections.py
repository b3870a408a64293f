"""Learn the main directions of a layer's inputs by a Hebbian rule, beside those of earlier tasks (HLOP)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cl.nn.counter import Counter
from lightning_cl.nn.subspace import SubspaceMemory

LARGEST = 10.0  # of a lateral weight


def hebbian_step(rows: Tensor, gram: Tensor, known: Tensor) -> Tensor:
    """``mean y^T (x - x_hat)`` with ``y = H x`` and ``x_hat = U U^T x + H^T y`` (Oja's subspace rule); ``(R, D)``.

    Args:
        rows: ``(R, D)`` lateral weights ``H``.
        gram: ``(D, D)`` mean of ``x x^T``.
        known: ``(D, n)`` orthonormal ``U``, the directions of earlier tasks.
    """
    seen = rows @ gram
    return seen - (seen @ known) @ known.T - (seen @ rows.T) @ rows


class HebbianSubspace(SubspaceMemory):
    """The directions of finished tasks, and lateral weights that learn those of the current one.

    Args:
        width: Size of an input, ``D``.
    """

    lateral: Tensor
    momentum: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("lateral", torch.zeros(width, width))  # of one size, so that any checkpoint fits
        self.register_buffer("momentum", torch.zeros(width, width))
        self.learning = Counter()  # how many rows learn

    def begin(self, count: int, generator: torch.Generator) -> None:
        """Learn this many directions from here on, at most as many as are left; the first lateral weights are random.

        Args:
            count: Rows, ``R``.
            generator: On the CPU: the same draws on any device and process.
        """
        count = min(count, len(self.lateral) - self.size)
        drawn = torch.randn(count, len(self.lateral), generator=generator) / len(self.lateral) ** 0.5
        self.lateral.zero_()[:count] = drawn.to(self.lateral)
        self.momentum.zero_()
        self.learning.set(count)

    @torch.no_grad()
    def learn(self, gram: Tensor, rate: float, inertia: float, iterations: int) -> None:
        """Move the lateral weights by Oja's rule; inputs are scaled to a mean squared length of 1.

        Args:
            gram: ``(D, D)`` ``sum x x^T`` of a batch; one of zeros changes nothing.
            rate: Learning rate, below 1.
            inertia: Share of the step before in the next one, in [0, 1).
            iterations: Steps.
        """
        total, basis = gram.trace(), self.basis.to(gram)
        scaled = gram / total.clamp_min(torch.finfo(gram.dtype).tiny)
        lateral, momentum = (kept[: self.learning.value] for kept in (self.lateral, self.momentum))
        rows, step = lateral.to(gram), momentum.to(gram)
        for _ in range(iterations):
            step = inertia * step + (1 - inertia) * hebbian_step(rows, scaled, basis)
            rows = (rows + rate * step).clamp(-LARGEST, LARGEST)
        for kept, new in ((lateral, rows), (momentum, step)):
            kept.copy_(torch.where(total > 0, new, kept))

    @torch.no_grad()
    def merge(self) -> int:
        """Add what was learned to the directions that are remembered, orthonormal to them; how many there were."""
        count, old = self.learning.value, self.basis.double()
        new = self.lateral[:count].T.double()
        for _ in range(2):  # the second time removes what rounding left
            new = new - old @ (old.T @ new)
        self.append(torch.linalg.qr(new).Q)
        self.learning.set(0)
        return count
