"""Choose logged transitions that a new policy would meet, and clone an expert: offline experience replay, style."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def select_transitions(
    states: Tensor,
    ends: Tensor,
    policy: Callable[[Tensor], Tensor],
    model: Callable[[Tensor, Tensor], Tensor],
    count: int,
) -> Tensor:
    """``(count,)`` different logged transitions along the paths of a policy (OER, arXiv:2305.13804; style).

    Logged data show where the policy that made them went, not where the learned one goes. So the learned policy is
    followed in a learned model of the dynamics: the first transition of a logged trajectory is taken; from its state
    the model predicts the next one under the policy, and the transition whose state is nearest to that is taken, and
    so on until one ends its trajectory; then the next trajectory begins. States are compared by Euclidean distance in
    units of their standard deviation over the log. The paper's abstract does not tell the details: where it left a
    choice, that is taken here with which a perfect model and the policy of the log give the log in its order.

    Args:
        states: ``(N, S)`` of all logged transitions, one trajectory after another.
        ends: ``(N,)`` bool, the last transitions of trajectories.
        policy: ``(1, S)`` states to ``(1, A)`` actions.
        model: ``(1, S)`` states and ``(1, A)`` actions to the ``(1, S)`` states that follow.
        count: How many, at most ``N``.

    Raises:
        ValueError: If more are asked for than there are, or there is not one end for each state.
    """
    if ends.shape != states.shape[:1]:
        raise ValueError(f"there are {len(states)} states, but `ends` is {tuple(ends.shape)}; give one for each.")
    if count > len(states):
        raise ValueError(f"`count` is {count}, but {len(states)} transitions were logged; give at most as many.")
    scale = states.std(dim=0, correction=0).clamp_min(torch.finfo(states.dtype).eps)
    starts = [0, *(ends.nonzero().flatten() + 1).tolist()]
    free = torch.ones(len(states), dtype=torch.bool, device=states.device)
    chosen: list[int] = []
    while len(chosen) < count:
        start = next((i for i in starts if i < len(states) and bool(free[i])), int(free.nonzero()[0]))
        target = states[start : start + 1]
        while len(chosen) < count:
            distance = ((states - target) / scale).square().sum(dim=1).masked_fill(~free, torch.inf)
            nearest = int(distance.argmin())
            chosen.append(nearest)
            free[nearest] = False
            if bool(ends[nearest]):
                break
            here = states[nearest : nearest + 1]
            target = model(here, policy(here))
    return torch.tensor(chosen, dtype=torch.long)


def dual_cloning(student: Tensor, expert: Tensor, remembered: Tensor, stored: Tensor) -> Tensor:
    """Two mean squared errors: of a student with a task's expert, and with what the memory holds (OER's cloning).

    The expert is trained on its task by a loss of its own, of which the student gets no gradient, nor the expert of
    this one.

    Args:
        student: ``(B, A)`` actions of the student on the task's states.
        expert: ``(B, A)`` actions of the expert on the same states.
        remembered: ``(M, A)`` actions of the student on remembered states; none while the memory is empty.
        stored: ``(M, A)`` actions that were stored with them.
    """
    loss = F.mse_loss(student, expert.detach())
    return loss + F.mse_loss(remembered, stored) if len(remembered) else loss
