"""A basis whose directions have owners: what is freed, what a step may do then, and where weights are pulled to."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lightning_cl.nn.owned_subspace import OwnedSubspace


def made() -> OwnedSubspace:
    """Task 0 brought the first axis, task 1 the second; a third is free. Their gradients were along their own axes."""
    block = OwnedSubspace(2, 3, tasks=4)
    for task in range(2):
        axis = torch.zeros(3, 3, dtype=torch.float64)
        axis[task, task] = 1
        block.extend_gram(axis, 1.0, crossing=True)
        gradient = torch.zeros(2, 3)
        gradient[:, task] = 1
        block.keep(torch.full((2, 3), 10.0 * (task + 1)), gradient, task)
    return block


def test_owners() -> None:
    block = made()
    assert block.owner.tolist() == [0, 1, -1]
    assert_close(block.basis.abs(), torch.eye(3)[:, :2])


def test_what_lies_within_and_agrees_is_free() -> None:
    for gradient, expected in [
        ([1.0, 0.0, 0.0], [True, False]),  # within task 0, as it would
        ([-1.0, 0.0, 0.0], [False, False]),  # within task 0, against it
        ([1.0, 0.0, 5.0], [False, False]),  # mostly elsewhere
        ([1.0, 1.0, 0.0], [True, True]),  # |g U| / |g| is 0.71 for both
        ([0.0, 0.0, 0.0], [False, False]),
    ]:
        block = made()
        block.decide(torch.tensor([gradient, gradient]), 2, likeness=0.5, sign=0.0)
        assert block.free.tolist() == [*expected, False, False]
    block.decide(torch.ones(2, 3), 2, likeness=1.1, sign=-1.0)
    assert not block.free.any()


def test_steps_and_pulls_along_free_directions() -> None:
    block, step = made(), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    held = step * torch.tensor([0.0, 0.0, 1.0])
    assert_close(block.project(step), held)
    assert_close(block.away(step), torch.zeros(2, 3))
    block.free[0] = True
    assert_close(block.project(step), step * torch.tensor([1.0, 0.0, 1.0]))
    gone = (step - 10) * torch.tensor([1.0, 0.0, 0.0])  # its end was at 10
    assert_close(block.away(step), gone)


def test_it_goes_on_after_loading() -> None:
    first, second = made(), OwnedSubspace(2, 3, tasks=4)
    first.decide(torch.ones(2, 3), 2, 0.5, 0.0)
    second.load_state_dict(first.state_dict())
    step = torch.randn(2, 3)
    assert torch.equal(first.project(step), second.project(step))
    assert torch.equal(first.away(step), second.away(step))
    assert second.decided.value == 2
