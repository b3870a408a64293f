"""Sparse codes and online regression against batch ridge regression, in any order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.nn.heads import GramHead, OnlineRidge, SoftGrid, SoftGridHead
from lightning_cl.nn.heads.online_ridge import active_step


def samples(count: int = 60) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(count, 5, dtype=torch.float64)
    return x, torch.stack([x[:, 0] * x[:, 1], x.sin().sum(1)], dim=1)


def batch_ridge(codes: Tensor, targets: Tensor, ridge: float) -> Tensor:
    return torch.linalg.solve(codes.T @ codes + ridge * torch.eye(codes.shape[1]).double(), codes.T @ targets)


def test_a_point_is_shared_out_to_the_corners_of_its_cell() -> None:
    """Typed out for every sample and grid."""
    grid, x = SoftGrid(5, grids=3, bins=4), samples(7)[0]
    dense = grid(x)
    assert_close(dense.unflatten(1, (3, 25)).sum(2), torch.ones(7, 3).double())
    place = 4 * torch.sigmoid(x @ grid.projection)
    for i in range(7):
        for g in range(3):
            u, v = place[i, 2 * g].item(), place[i, 2 * g + 1].item()
            expected = torch.zeros(5, 5).double()
            for a in (int(u), int(u) + 1):
                for b in (int(v), int(v) + 1):
                    expected[a, b] = (1 - abs(u - a)) * (1 - abs(v - b))
            assert_close(dense[i].view(3, 5, 5)[g], expected)
    hard = SoftGrid(5, grids=3, bins=4, hard=True)(x)
    assert bool(((hard == 0) | (hard == 1)).all())
    assert bool((hard.unflatten(1, (3, 25)).sum(2) == 1).all())


def test_the_far_corner_is_still_in_a_cell() -> None:
    grid = SoftGrid(1, grids=1, bins=2)
    grid.projection.fill_(1000.0)
    assert_close(grid(torch.ones(1, 1))[0], torch.zeros(9).double().index_fill_(0, torch.tensor(8), 1.0))


@pytest.mark.parametrize("sizes", [[1] * 60, [60], [17, 3, 40]])
def test_the_exact_solver_is_batch_ridge_in_any_order(sizes: list[int]) -> None:
    grid, (x, y) = SoftGrid(5, grids=4, bins=3), samples()
    learner, order = OnlineRidge(grid, 2, 0.1), torch.randperm(60)
    for part in order.split(sizes):
        learner.update(x[part], y[part])
    assert_close(learner.weights, batch_ridge(grid(x), y, 0.1), rtol=0, atol=1e-6)
    assert_close(learner(x), grid(x) @ learner.weights)


def test_active_rows_alone_move_and_the_objective_never_rises() -> None:
    grid, (x, y) = SoftGrid(5, grids=4, bins=3), samples()
    learner = OnlineRidge(grid, 2, 0.1, solver="active")

    def objective() -> float:
        return float((learner.weights * (learner.matrix @ learner.weights - 2 * learner.cross)).sum()) + 0.1 * float(
            learner.weights.square().sum()
        )

    for i in range(20):
        before, nodes = learner.weights.clone(), grid.code(x[i : i + 1]).nodes[0]
        learner.update(x[i : i + 1], y[i : i + 1])
        moved = (learner.weights != before).any(1).nonzero().flatten()
        assert set(moved.tolist()) <= set(nodes.tolist())
    learner.update(x[20:], y[20:])
    value = objective()
    for _ in range(300):
        for rows in torch.arange(grid.size).split(16):
            learner.weights[rows] = active_step(learner.matrix, learner.cross, learner.weights, rows, 0.1)
        assert objective() <= value + 1e-9
        value = objective()
    assert_close(learner.weights, batch_ridge(grid(x), y, 0.1), rtol=0, atol=1e-4)


def test_far_inputs_leave_each_other_alone() -> None:
    """On a line with many bins two far points share no node."""
    grid = SoftGrid(1, grids=2, bins=8)
    grid.projection.fill_(1.0)
    near, far = torch.tensor([[-2.0]]), torch.tensor([[2.0]])
    learner = OnlineRidge(grid, 1)
    learner.update(near, torch.tensor([[1.0]]))
    before = learner(near)
    learner.update(far, torch.tensor([[-5.0]]))
    assert_close(learner(near), before)
    assert learner(far).item() == pytest.approx(-5, rel=0.01)


def test_the_classifier_is_the_gram_head_on_codes() -> None:
    grid, (x, _) = SoftGrid(5, grids=4, bins=3), samples()
    labels = torch.arange(60) % 3
    own, plain = SoftGridHead(grid, 3, 0.5), GramHead(grid.size, 3, 0.5)
    for part in (slice(0, 10), slice(10, 60)):
        own.update(x[part], labels[part])
    plain.update(grid(x), labels)
    assert_close(own(x), plain(grid(x)))


def test_bad_input() -> None:
    grid = SoftGrid(5, grids=2, bins=2)
    with pytest.raises(ValueError, match=r"`ridge` is 0; give a number above 0"):
        OnlineRidge(grid, 1, ridge=0)
    with pytest.raises(ValueError, match='give "exact" or "active"'):
        OnlineRidge(grid, 1, solver="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(4,\); expected \(B, 2\)"):
        OnlineRidge(grid, 2).update(torch.zeros(4, 5), torch.zeros(4))
