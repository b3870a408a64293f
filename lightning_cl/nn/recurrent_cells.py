"""Recurrent layers whose units have time constants of their own: leaky integrators, and liquid ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def leaky_step(state: Tensor, drive: Tensor, tau: Tensor | float) -> Tensor:
    """``(1 - 1/tau) r + drive/tau``: a leaky integrator.

    Args:
        state: ``(B, H)`` ``r``.
        drive: ``(B, H)`` what it runs towards.
        tau: Time constants, at least 1 step each: one for all or ``(H,)``; 1 keeps nothing.
    """
    return (1 - 1 / tau) * state + drive / tau


def liquid_step(state: Tensor, gate: Tensor, target: Tensor, tau: Tensor | float, dt: float) -> Tensor:
    """One fused step of ``dx/dt = -x/tau + f (A - x)``: ``(x + dt f A) / (1 + dt (1/tau + f))``, stable for any ``dt``.

    Args:
        state: ``(B, H)`` ``x``.
        gate: ``(B, H)`` ``f``, at least 0: it shortens the time constant and pulls towards ``A``.
        target: ``(H,)`` ``A``.
        tau: Time constants, above 0: one for all or ``(H,)``.
        dt: Above 0.
    """
    return (state + dt * gate * target) / (1 + dt * (1 / tau + gate))


class LeakyRNN(nn.Module):
    """A recurrent network of leaky units with trained time constants (arXiv:2309.12927).

    ``r_t = (1 - 1/tau) r_{t-1} + (1/tau) f(W r_{t-1} + U x_t + b)`` with a leaky ReLU; ``tau = 1 + softplus(.)``.

    Args:
        width: Of the inputs, ``D``.
        hidden: Units, ``H``; 500 in the paper.
        tau: First time constant, above 1.

    Raises:
        ValueError: If ``tau`` is not above 1.
    """

    def __init__(self, width: int, hidden: int, tau: float = 2.0) -> None:
        super().__init__()
        if not tau > 1:
            raise ValueError(f"`tau` is {tau}; give a first time constant above 1 step.")
        self.into, self.again = nn.Linear(width, hidden), nn.Linear(hidden, hidden, bias=False)
        self.raw_tau = nn.Parameter(torch.full((hidden,), tau - 1.0).expm1().log())

    @property
    def tau(self) -> Tensor:
        """``(H,)`` time constants in steps, above 1."""
        tau: Tensor = 1 + F.softplus(self.raw_tau)
        return tau

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` to the ``(B, H)`` state after the last step."""
        drives, tau = self.into(x), self.tau
        state: Tensor = drives.new_zeros(len(x), drives.shape[-1])
        for at in range(x.shape[1]):
            state = leaky_step(state, F.leaky_relu(drives[:, at] + self.again(state)), tau)
        return state


class LiquidRNN(nn.Module):
    """A recurrent network of liquid time-constant units: what comes in decides how fast the state follows (2006.04439).

    ``dx/dt = -x/tau + f(x, I)(A - x)`` by fused steps, ``f`` a sigmoid of an affine map of state and input.

    Args:
        width: Of the inputs, ``D``.
        hidden: Units, ``H``.
        steps: Fused steps an input, at least 1; 6 as is usual.

    Raises:
        ValueError: If ``steps`` is below 1.
    """

    def __init__(self, width: int, hidden: int, steps: int = 6) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"`steps` is {steps}; give at least 1.")
        self.gate, self.steps = nn.Linear(width + hidden, hidden), steps
        self.target = nn.Parameter(torch.randn(hidden))
        self.raw_tau = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` to the ``(B, H)`` state after the last input."""
        state, tau = x.new_zeros(len(x), len(self.target)), F.softplus(self.raw_tau)
        for at in range(x.shape[1]):
            for _ in range(self.steps):
                gate = self.gate(torch.cat([x[:, at], state], 1)).sigmoid()
                state = liquid_step(state, gate, self.target, tau, 1 / self.steps)
        return state
