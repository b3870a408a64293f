"""OWM's projector against its recursion, one input after the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.nn.soft_projection import SoftProjection

WIDTH = 5


def inputs(count: int, seed: int) -> Tensor:
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def recursion(tasks: list[Tensor], alpha: float) -> Tensor:
    """``P <- P - P x x^T P / (alpha + x^T P x)``, with inputs of a mean square of 1 in each task."""
    p = torch.eye(WIDTH, dtype=torch.float64)
    for rows in tasks:
        scale = (WIDTH / (rows**2).sum()) ** 0.5
        for x in rows * scale:
            k = p @ x
            p = p - torch.outer(k, k) / (alpha + x @ k)
    return p


def test_the_projector_is_that_of_the_recursion() -> None:
    tasks, alpha = [inputs(7, 0), inputs(3, 1)], 0.3
    block = SoftProjection(WIDTH)
    for rows in tasks:
        block.extend_gram(rows.T @ rows, alpha)
    step = torch.randn(4, WIDTH, dtype=torch.float64)
    assert_close(block.project(step), step @ recursion(tasks, alpha), rtol=1e-5, atol=1e-6)
    assert_close(block.project(step.T, "out"), recursion(tasks, alpha) @ step.T, rtol=1e-5, atol=1e-6)


def test_small_alpha_is_the_orthogonal_projection() -> None:
    """Outputs on the inputs stay; a direction that never came is free."""
    rows = inputs(20, 0)
    rows[:, 2] = 0
    block = SoftProjection(WIDTH)
    block.extend_gram(rows.T @ rows, 1e-9)
    step = block.project(torch.ones(3, WIDTH, dtype=torch.float64))
    assert (rows @ step.T).abs().max() < 1e-5
    assert_close(step[:, 2], torch.ones(3, dtype=torch.float64))


def test_empty_it_changes_nothing_and_a_convolution_keeps_its_shape() -> None:
    block, step = SoftProjection(4), torch.randn(2, 1, 2, 2)
    assert block.project(step) is step
    block.extend_gram(torch.eye(4, dtype=torch.float64), 1.0)
    assert_close(block.project(step), step / 2)  # mean strength 1, alpha 1


def test_it_goes_on_after_loading() -> None:
    first, second = SoftProjection(WIDTH), SoftProjection(WIDTH)
    first.extend_gram(torch.eye(WIDTH, dtype=torch.float64), 0.5)
    second.load_state_dict(first.state_dict())
    assert second.size == 1
    for block in (first, second):
        block.extend_gram(torch.ones(WIDTH, WIDTH, dtype=torch.float64), 0.5)
    assert torch.equal(first.projector, second.projector)
