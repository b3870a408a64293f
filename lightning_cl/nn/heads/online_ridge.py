"""Linear regression that is solved anew with every batch: follow the leader, exactly or for the active rows alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_cl.nn.heads.soft_grid import SoftGrid

Solver = Literal["exact", "active"]


def recursive_step(inverse: Tensor, weights: Tensor, codes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One step of recursive least squares (Sherman, Morrison and Woodbury), for any number of samples.

    Args:
        inverse: ``(M, M)`` ``(sum phi phi^T + ridge I)^-1`` before the samples.
        weights: ``(M, K)`` the ridge solution before.
        codes: ``(B, M)`` regressors ``phi``.
        targets: ``(B, K)``.

    Returns:
        Both after the samples, exact up to rounding.
    """
    gain = inverse @ codes.T  # (M, B)
    inner = torch.eye(len(codes), dtype=codes.dtype, device=codes.device) + codes @ gain
    inverse = inverse - gain @ torch.linalg.solve(inner, gain.T)
    return inverse, weights + inverse @ codes.T @ (targets - codes @ weights)


def active_step(gram: Tensor, cross: Tensor, weights: Tensor, rows: Tensor, ridge: float) -> Tensor:
    """Solve the ridge problem for some rows of the weights, with all others as they are.

    ``W_s = (A_ss + ridge I)^-1 (B_s - A_s,rest W_rest)``: a step of block coordinate descent, which never raises the
    ridge objective. It is approximate: only sweeps over all rows come to the ridge solution.

    Args:
        gram: ``(M, M)`` ``A = sum phi phi^T``.
        cross: ``(M, K)`` ``B = sum phi y^T``.
        weights: ``(M, K)``.
        rows: ``(R,)`` the rows, each once.
        ridge: Above 0.

    Returns:
        ``(R, K)`` new values of these rows.
    """
    own = gram[rows][:, rows]
    wanted = cross[rows] - gram[rows] @ weights + own @ weights[rows]
    found: Tensor = torch.linalg.solve(own + ridge * torch.eye(len(rows), dtype=own.dtype, device=own.device), wanted)
    return found


class OnlineRidge(nn.Module):
    """Ridge regression of any targets on codes of frozen features, up to date after every batch (Losse-FTL's learner).

    It forgets nothing: with ``solver="exact"`` the weights are those of one fit to all samples so far, in any order.
    ``"active"`` re-solves the rows of the batch's nodes alone, which costs ``O(R^3 + R M)`` for ``R`` of ``M`` rows.

    Args:
        grid: Makes the codes.
        outputs: Size of a target, ``K``.
        ridge: Strength of the regularisation, above 0.
        solver: ``"exact"`` keeps an ``(M, M)`` inverse, ``"active"`` the ``(M, M)`` Gram matrix and ``(M, K)``
            products.

    Raises:
        ValueError: If the ridge is not above 0, or the solver unknown.
    """

    weights: Tensor
    matrix: Tensor
    cross: Tensor

    def __init__(self, grid: SoftGrid, outputs: int, ridge: float = 0.01, solver: Solver = "exact") -> None:
        if ridge <= 0:
            raise ValueError(f"`ridge` is {ridge}; give a number above 0.")
        if solver not in ("exact", "active"):
            raise ValueError(f'`solver` is {solver!r}; give "exact" or "active".')
        super().__init__()
        self.grid, self.ridge, self.solver = grid, ridge, solver
        exact, shape = solver == "exact", (grid.size, outputs)
        self.register_buffer("weights", torch.zeros(shape, dtype=torch.float64))
        start = torch.eye(grid.size, dtype=torch.float64) / ridge
        self.register_buffer("matrix", start if exact else torch.zeros_like(start))
        self.register_buffer("cross", torch.zeros(0 if exact else grid.size, outputs, dtype=torch.float64))

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Learn ``(B, D)`` features with ``(B, K)`` targets; on several processes give each the rows of all.

        Raises:
            ValueError: If a target has another size.
        """
        if targets.ndim != 2 or targets.shape[1] != self.weights.shape[1]:
            raise ValueError(
                f"the targets have the shape {tuple(targets.shape)}; expected (B, {self.weights.shape[1]}): one row a "
                "sample."
            )
        targets, codes = targets.double(), self.grid(features)
        if self.solver == "exact":
            matrix, weights = recursive_step(self.matrix, self.weights, codes, targets)
            self.matrix.copy_(matrix)
            self.weights.copy_(weights)
            return
        self.matrix.addmm_(codes.T, codes)
        self.cross.addmm_(codes.T, targets)
        rows = self.grid.code(features).nodes.unique()
        self.weights[rows] = active_step(self.matrix, self.cross, self.weights, rows, self.ridge)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, D)`` features to ``(B, K)`` predictions; 0 before the first sample. Carries no gradient."""
        answers: Tensor = self.grid(features.detach()) @ self.weights
        return answers.to(torch.promote_types(features.dtype, torch.float32))
