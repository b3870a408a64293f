"""Offline experience replay: which transitions a policy meets, and what a student learns of an expert."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_cl.nn.experience_selection import dual_cloning, select_transitions

ENDS = torch.tensor([False, False, True] * 2)


def trajectories() -> Tensor:
    """Two of three steps: from (0, 0) to the right, and from (5, 9) upwards."""
    return torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [5.0, 9.0], [5.0, 10.0], [5.0, 11.0]])


def logged(state: Tensor) -> Tensor:
    """The action of the log."""
    return torch.tensor([[0.0, 1.0]]) if float(state[0, 0]) == 5 else torch.tensor([[1.0, 0.0]])


def true_model(state: Tensor, action: Tensor) -> Tensor:
    return state + action


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_the_logs_policy_gives_its_trajectories_in_order(count: int) -> None:
    found = select_transitions(trajectories(), ENDS, logged, true_model, count)
    assert found.tolist() == list(range(count))


def test_another_policy_meets_other_transitions() -> None:
    """It jumps from (0, 0) to the other trajectory, two steps at a time, and then takes up what is left."""

    def jump(state: Tensor) -> Tensor:
        return torch.tensor([[5.0, 9.0]]) if float(state[0, 1]) == 0 else torch.tensor([[0.0, 2.0]])

    found = select_transitions(trajectories(), ENDS, jump, true_model, 6).tolist()
    assert found[:3] == [0, 3, 5]
    assert sorted(found) == list(range(6))  # each once


def test_distances_are_in_units_of_the_deviation() -> None:
    """The second coordinate is 100 times as large: without its scale it would decide alone."""
    states = torch.tensor([[0.0, 0.0], [1.0, 100.0], [0.0, 130.0]])
    ends = torch.zeros(3, dtype=torch.bool)

    def model(state: Tensor, action: Tensor) -> Tensor:
        return torch.tensor([[1.0, 120.0]])

    assert select_transitions(states, ends, logged, model, 2).tolist() == [0, 1]


def test_cloning() -> None:
    student, expert = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[1.0, 4.0]], requires_grad=True)
    remembered, stored = torch.tensor([[3.0], [0.0]], requires_grad=True), torch.tensor([[0.0], [0.0]])
    loss = dual_cloning(student, expert, remembered, stored)
    loss.backward()
    assert loss.item() == 2.0 + 4.5
    assert expert.grad is None
    assert student.grad is not None
    assert dual_cloning(student, student, remembered[:0], stored[:0]).item() == 0.0


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`count` is 7, but 6 transitions"):
        select_transitions(trajectories(), ENDS, logged, true_model, 7)
    with pytest.raises(ValueError, match=r"there are 6 states, but `ends` is \(2,\)"):
        select_transitions(trajectories(), ENDS[:2], logged, true_model, 1)
