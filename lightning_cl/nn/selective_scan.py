"""The selective scan of Mamba (arXiv:2312.00752): a linear recurrence over tokens whose coefficients they choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Numbers that are to be made at once: larger tensors cost more time to allocate than to compute.
CACHED = 2**17


class Coefficients(NamedTuple):
    """What the tokens choose, and the rates that they cannot choose.

    Attributes:
        steps: ``(B, L, E)`` step sizes ``dt``, at least 0: how far a token moves the states.
        write: ``(B, L, N)`` ``B``: how a token is written into the states of every channel.
        read: ``(B, L, N)`` ``C``: how the states are read.
        rates: ``(E, N)`` ``A``, below 0: how fast each state decays.
    """

    steps: Tensor
    write: Tensor
    read: Tensor
    rates: Tensor


def selective_scan(inputs: Tensor, coefficients: Coefficients, chunk: int | None = None) -> Tensor:
    """``y_t = C_t h_t`` with the states ``h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t`` and ``h_0 = 0``.

    The recurrence itself is made, token by token, which is stable for any step; what does not depend on the states is
    made at once for a chunk of tokens, so that a token costs one operation. For the gradient, of first order alone, the
    states in front of each chunk are kept and all others made again. On a GPU the kernel of ``mamba_ssm`` is used where
    the package is installed.

    Args:
        inputs: ``(B, L, E)`` ``x``.
        coefficients: Of the tokens; in the precision of the inputs.
        chunk: Tokens whose coefficients, ``(chunk, B, N, E)``, are made together, which changes time alone; ``None``:
            as many as fit into a processor's cache.

    Returns:
        ``(B, L, E)``.
    """
    kernel = _kernel() if inputs.is_cuda else None
    if kernel is not None:
        return _of_kernel(kernel, inputs, coefficients)
    chunk = chunk or min(max(CACHED // (len(inputs) * coefficients.rates.numel()), 1), 16)
    output: Tensor = _Scan.apply(inputs, *coefficients, chunk)[0]
    return output


class _Scan(torch.autograd.Function):
    """The recurrence in chunks of tokens; of the states only those in front of each chunk are kept for the gradient.

    Within, states are ``(B, N, E)``: their channels, of which there are more, lie next to each other.
    """

    generate_vmap_rule = True  # for gradients of single samples

    @staticmethod
    def forward(inputs: Tensor, steps: Tensor, write: Tensor, read: Tensor, rates: Tensor, chunk: int) -> Any:
        """``(B, L, E)`` the output, and the ``(K, B, N, E)`` states in front of the chunks."""
        rates = rates.T.contiguous()
        state, outputs, starts = inputs.new_zeros(len(inputs), *rates.shape), [], []
        for x, dt, b, c in _chunks(chunk, inputs, steps, write, read):
            starts.append(state)
            decay = _decay(dt, rates)
            states = _states(state, x, dt, b, decay)
            state = states[-1].clone()  # or all others would stay, too
            outputs.append((c[:, :, None] @ states).squeeze(2))  # (K, B, E)
        return torch.cat(outputs).transpose(0, 1), torch.stack(starts)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the inputs and the states in front of the chunks."""
        *tensors, ctx.chunk = inputs
        ctx.save_for_backward(*tensors, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor, _: Any) -> Any:
        """The same recurrence from the last token to the first, chunk by chunk; states are made again."""
        inputs, steps, write, read, rates, starts = ctx.saved_tensors
        rates = rates.T.contiguous()
        parts = list(zip(_chunks(ctx.chunk, inputs, steps, write, read, wanted), starts.unbind(), strict=True))
        later, of_rates, found = torch.zeros_like(starts[0]), torch.zeros_like(rates), []
        for (x, dt, b, c, g), state in reversed(parts):
            decay = _decay(dt, rates)
            states, of_states = _states(state, x, dt, b, decay), g[:, :, None] * c[..., None]  # (K, B, N, E)
            for share, of_state in zip(reversed(decay.unbind()), reversed(of_states.unbind()), strict=True):
                later = of_state.add_(later) * share
            of_exponent = of_states * decay
            of_exponent[0].mul_(state)
            of_exponent[1:].mul_(states[:-1])
            written = (b[:, :, None] @ of_states).squeeze(2)  # gradients of dt * x
            of_write = (of_states @ (dt * x)[..., None]).squeeze(3)
            of_read = (states @ g[..., None]).squeeze(3)
            of_steps = (of_exponent * rates).sum(2) + written * x
            of_rates = of_rates + (of_exponent * dt[:, :, None]).sum((0, 1))
            found.append((written * dt, of_steps, of_write, of_read))
        of_tokens = (torch.cat(part).transpose(0, 1) for part in zip(*found[::-1], strict=True))
        return *of_tokens, of_rates.T, None


def _chunks(chunk: int, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """``(B, L, D)`` values with the tokens in front, ``(K, B, D)`` of one chunk after another."""
    return zip(*(value.transpose(0, 1).contiguous().split(chunk) for value in values), strict=True)


def _decay(dt: Tensor, rates: Tensor) -> Tensor:
    """``(K, B, N, E)`` ``exp(dt A)``, as a power of 2, which takes a third of the time."""
    return (dt[:, :, None] * (rates / math.log(2))).exp2_()


def _states(state: Tensor, x: Tensor, dt: Tensor, b: Tensor, decay: Tensor) -> Tensor:
    """``(K, B, N, E)`` the states behind every token of a chunk, of the one in front of it."""
    states = (dt * x)[:, :, None] * b[..., None]
    for share, gained in zip(decay.unbind(), states.unbind(), strict=True):
        state = gained.addcmul_(share, state)
    return states


class _Softplus(torch.autograd.Function):
    """``max(x, 0) + log(u) + (e - (u - 1)) / u`` with ``e = exp(-|x|)`` and ``u = 1 + e``, which is rounded."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        e = x.abs().neg_().exp_()
        u = 1 + e
        return e.sub_(u - 1).div_(u).add_(u.log()).add_(x.clamp_min(0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = wanted * x.sigmoid()
        return gradient


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` to the rounding of its precision, in a third of the time that PyTorch takes on a CPU."""
    value: Tensor = _Softplus.apply(x)
    return value


class ScanOutput(NamedTuple):
    """What a block gives, and what its tokens chose.

    Attributes:
        tokens: ``(B, L, E)``.
        gate: ``(B, L, E)`` the gate before its activation.
        coefficients: Of the tokens.
    """

    tokens: Tensor
    gate: Tensor
    coefficients: Coefficients


class SelectiveBlock(nn.Module):
    """A selective state-space block: tokens choose step sizes, what is written and read, and a gate.

    ``(y + D x) * silu(z)`` with ``x`` and ``z`` linear in the token, ``dt`` through a softplus from a space of ``rank``
    channels, ``A = -exp(log_rates)`` and ``y`` the :func:`selective_scan`, the sum over several orders of the tokens.
    Mamba's convolution over neighbouring tokens and its last projection are left out, as tokens here are few.

    Args:
        width: Channels of a token, ``E``.
        states: Of each channel, ``N``.
        rank: Channels from which step sizes are made; ``None``: ``width / 16``, at least 1, as in Mamba.
    """

    def __init__(self, width: int, states: int = 16, rank: int | None = None) -> None:
        super().__init__()
        self.width, self.states, self.rank = width, states, rank or max(width // 16, 1)
        self.project = nn.Linear(width, 2 * width, bias=False)  # x, then the gate
        self.choose = nn.Linear(width, self.rank + 2 * states, bias=False)
        self.widen = nn.Linear(self.rank, width)
        self.log_rates = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        first = torch.exp(torch.linspace(math.log(1e-3), math.log(1e-1), width))  # step sizes at the start
        with torch.no_grad():
            self.widen.bias.copy_(first + torch.log(-torch.expm1(-first)))  # the inverse of softplus

    def close_gate(self) -> None:
        """Let the block give zeros, exactly, until the gate has learned."""
        with torch.no_grad():
            self.project.weight[self.width :] = 0

    def forward(self, tokens: Tensor, orders: Tensor | None = None) -> ScanOutput:
        """Scan ``(B, L, E)`` tokens.

        Args:
            tokens: In at least 32 bits; autocast does not reach the recurrence, whose rounding would add up.
            orders: ``(O, L)`` places of the tokens in each order of scanning; ``None``: as they are.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            x, gate = self.project(tokens).chunk(2, dim=2)
            low, write, read = self.choose(x).split([self.rank, self.states, self.states], dim=2)
            chosen = Coefficients(softplus(self.widen(low)), write, read, -self.log_rates.exp())
            scanned = selective_scan(x, chosen) if orders is None else scan_in_orders(x, chosen, orders)
            return ScanOutput((scanned + self.skip * x) * F.silu(gate), gate, chosen)


def scan_in_orders(inputs: Tensor, coefficients: Coefficients, orders: Tensor) -> Tensor:
    """The sum of the scans over several orders of the tokens, each put back in place, ``(B, L, E)``.

    Args:
        inputs: ``(B, L, E)``.
        coefficients: Of the tokens.
        orders: ``(O, L)`` permutations of the places.
    """
    count, back = len(orders), orders.argsort(dim=1)
    steps, write, read, rates = coefficients
    x, dt, b, c = (_ordered(value, orders) for value in (inputs, steps, write, read))
    scanned = selective_scan(x, Coefficients(dt, b, c, rates)).unflatten(0, (count, -1))  # (O, B, L, E)
    return torch.stack([part[:, places] for part, places in zip(scanned, back, strict=True)]).sum(0)


def _ordered(values: Tensor, orders: Tensor) -> Tensor:
    """``(B, L, D)`` in every order, one behind another: ``(O * B, L, D)``."""
    return values[:, orders].transpose(0, 1).flatten(0, 1)


def map_orders(side: int) -> Tensor:
    """``(4, side^2)`` places of a square map: along rows, rows reversed, along columns, columns reversed."""
    rows = torch.arange(side * side)
    columns = rows.view(side, side).T.flatten()
    return torch.stack([rows, rows.flip(0), columns, columns.flip(0)])


@cache
def _kernel() -> Callable[..., Tensor] | None:
    """The kernel of ``mamba_ssm``; ``None``: the package is not installed, or not for this machine."""
    try:
        found: Callable[..., Tensor] = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except (ImportError, AttributeError, OSError):  # a build for another torch does not load
        return None
    return found


def _of_kernel(kernel: Callable[..., Any], inputs: Tensor, coefficients: Coefficients) -> Tensor:
    """The kernel takes channels in front of tokens."""
    steps, write, read, rates = coefficients
    turned = (value.transpose(1, 2).contiguous() for value in (inputs, steps, write, read))
    x, dt, b, c = turned
    output: Tensor = kernel(x, dt, rates, b, c)
    return output.transpose(1, 2)
