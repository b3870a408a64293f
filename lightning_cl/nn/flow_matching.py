"""Carry a planned action to the one that is meant, along a learned flow (conditional flow matching)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StraightLines(NamedTuple):
    """Places on straight lines from starts to ends.

    Attributes:
        time: ``(B, 1)`` in [0, 1].
        place: ``(B, D)`` ``(1 - t) start + t end``.
        velocity: ``(B, D)`` ``end - start``, what a flow should say there.
    """

    time: Tensor
    place: Tensor
    velocity: Tensor


def straight_lines(start: Tensor, end: Tensor, generator: torch.Generator | None = None) -> StraightLines:
    """A place at a uniform time on the line of each pair.

    Args:
        start: ``(B, D)``, at time 0.
        end: ``(B, D)``, at time 1.
        generator: On the pairs' device; the global one when ``None``.

    Raises:
        ValueError: If starts and ends have different shapes.
    """
    if start.shape != end.shape:
        raise ValueError(
            f"starts are {tuple(start.shape)} and ends {tuple(end.shape)}; give pairs of one shape (B, D)."
        )
    time = torch.rand(len(start), 1, generator=generator, dtype=start.dtype, device=start.device)
    return StraightLines(time, torch.lerp(start, end, time), end - start)


def follow(velocity: Callable[[Tensor, Tensor], Tensor], start: Tensor, steps: int = 10) -> Tensor:
    """``(B, D)`` where a flow carries ``start`` from time 0 to 1, by the midpoint rule.

    Args:
        velocity: Of ``(B, 1)`` times and ``(B, D)`` places the ``(B, D)`` velocities.
        start: ``(B, D)``.
        steps: Of the same length, at least 1; each asks for two velocities.

    Raises:
        ValueError: If there is no step.
    """
    if steps < 1:
        raise ValueError(f"`steps` is {steps}; give a number of at least 1.")
    place, step = start, 1.0 / steps
    for number in range(steps):
        time = start.new_full((len(start), 1), number * step)
        middle = place + step / 2 * velocity(time, place)
        place = place + step * velocity(time + step / 2, middle)
    return place


def changed_regime(realised: Tensor, predicted: Tensor, threshold: float = 1.0) -> Tensor:
    """``(B, S)`` errors of a model of the dynamics; 0 where their norm is at most ``threshold``."""
    error = realised - predicted
    return torch.where(error.norm(dim=-1, keepdim=True) > threshold, error, torch.zeros_like(error))


class ActionFlow(nn.Module):
    """The flow of Action Flow Matching (RSS 2025, arXiv:2504.18471): planned actions to intended ones.

    A model of the dynamics that was learned before no longer holds. Rather than to explore with the actions of its
    plans, they are carried by a flow to those whose effect is the planned one. The flow depends on the regime: the
    state, the planned action and the error of the model there (:func:`changed_regime`), registered anew after an action
    whose error is above the threshold. Its velocity is that of straight lines from planned to intended actions, with
    mean squared error. Sizes are those of the authors' code, which trains with Adam, 1e-2, batches of 256. Planner,
    ensemble of dynamics models and simulator are not here.

    Args:
        states: Width of a state, ``S``.
        actions: Width of an action, ``A``.
        width: Of the two encoders' layers.
    """

    def __init__(self, states: int, actions: int, width: int = 64) -> None:
        super().__init__()

        def encoder(inputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, width), nn.ELU(), nn.Linear(width, width), nn.ELU())

        self.action, self.regime = encoder(1 + actions), encoder(2 * states + actions)
        joint = [nn.Linear(2 * width, 2 * width), nn.ELU(), nn.Linear(2 * width, width), nn.ELU()]
        self.joint = nn.Sequential(*joint, nn.Linear(width, actions))

    def forward(self, time: Tensor, place: Tensor, regime: Tensor) -> Tensor:
        """``(B, A)`` velocities.

        Args:
            time: ``(B, 1)`` in [0, 1].
            place: ``(B, A)``.
            regime: ``(B, 2 S + A)`` state, planned action and error.
        """
        return self.joint(torch.cat([self.action(torch.cat([time, place], -1)), self.regime(regime)], -1))  # type: ignore[no-any-return]

    def loss(
        self, planned: Tensor, intended: Tensor, state: Tensor, error: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The mean squared error of the velocity at one place of each line from ``(B, A)`` planned to intended."""
        line = straight_lines(planned, intended, generator)
        return F.mse_loss(self(line.time, line.place, torch.cat([state, planned, error], -1)), line.velocity)

    @torch.no_grad()
    def correct(self, planned: Tensor, state: Tensor, error: Tensor, steps: int = 10) -> Tensor:
        """``(B, A)`` actions to take in the place of the planned ones."""
        regime = torch.cat([state, planned, error], -1)
        return follow(lambda time, place: self(time, place, regime), planned, steps)
