"""Shorten the steps of a layer along the inputs it has seen, the more the stronger they are: the projector of OWM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_cl.nn.load_hooks import after_load
from lightning_cl.nn.subspace import Side


class SoftProjection(nn.Module):
    """``P = (I + sum_t C_t / alpha)^-1`` of the inputs' second moments ``C_t`` (OWM, arXiv:1810.01256).

    Each task's ``C_t`` is scaled to a trace of ``D``, so that ``alpha`` has no unit. A direction with ``c`` times the
    mean strength keeps ``1 / (1 + c / alpha)`` of a step. ``P`` is what recursive least squares, one input after the
    other, comes to.

    Args:
        width: Size of an input, ``D``.
    """

    moments: Tensor
    projector: Tensor
    tasks: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("moments", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("projector", torch.eye(width))
        self.register_buffer("tasks", torch.zeros((), dtype=torch.long))
        self.size = 0  # tasks counted; mirrors `tasks` without a host sync
        after_load(self, "_read_size")

    def _read_size(self) -> None:
        self.size = int(self.tasks)

    @torch.no_grad()
    def extend_gram(self, gram: Tensor, alpha: float) -> None:
        """Count the inputs of a task.

        Args:
            gram: ``(D, D)`` ``sum x x^T`` over all of them, not zero.
            alpha: Above 0.
        """
        gram = gram.to(self.moments)
        self.moments += gram * (len(gram) / gram.trace())
        system = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) + self.moments / alpha
        self.projector.copy_(torch.cholesky_inverse(torch.linalg.cholesky(system)))
        self.size += 1
        self.tasks.fill_(self.size)

    def project(self, gradient: Tensor, side: Side = "in") -> Tensor:
        """``g P`` for ``D`` inputs, or ``P g`` for ``D`` outputs, of a gradient (or step) of the weight's shape."""
        if not self.size:
            return gradient
        projector, flat = self.projector.to(gradient.dtype), gradient.flatten(1)
        return (flat @ projector if side == "in" else projector @ flat).view_as(gradient)

    def extra_repr(self) -> str:
        """How much is counted."""
        return f"{len(self.moments)} inputs, {self.size} tasks"
