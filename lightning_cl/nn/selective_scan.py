"""The selective scan of Mamba (arXiv:2312.00752): a linear recurrence over tokens whose coefficients they choose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_cl.nn.softplus import softplus

#: Numbers of the states of a chunk, which a processor's cache holds, and its tokens, at most.
CACHED, LONGEST = 2**19, 32


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
    made at once for a chunk of tokens, so that a token costs one operation. All chunks are made in the same memory, for
    allocating it would cost more than computing. For the gradient, of first order alone, the states in front of each
    chunk are kept and all others made again. On a GPU the kernel of ``mamba_ssm`` is used where the package is
    installed.

    Args:
        inputs: ``(B, L, E)`` ``x``.
        coefficients: Of the tokens; in the precision of the inputs.
        chunk: Tokens whose coefficients, ``(chunk, B, N, E)``, are made together, which changes time and rounding
            alone; ``None``: as many as fit into a processor's cache.

    Returns:
        ``(B, L, E)``; of no tokens, none.
    """
    if not inputs.shape[1]:
        return inputs.clone()
    kernel = _kernel() if inputs.is_cuda else None
    if kernel is not None:
        return _of_kernel(kernel, inputs, coefficients)
    chunk = chunk or _chunk(inputs.shape[1], len(inputs) * coefficients.rates.numel())
    output: Tensor = _Scan.apply(inputs, *coefficients, chunk)[0]
    return output


def _chunk(tokens: int, size: int) -> int:
    """Tokens of a chunk where one has states of ``size`` numbers; all chunks are about as long."""
    longest = min(max(CACHED // max(size, 1), 1), LONGEST)
    return math.ceil(tokens / max(math.ceil(tokens / longest), 1)) or 1


class _Scan(torch.autograd.Function):
    """The recurrence in chunks of tokens; of the states only those in front of each chunk are kept for the gradient.

    Within, states are ``(B, N, E)``: their channels, of which there are more, lie next to each other.
    """

    @staticmethod
    def forward(inputs: Tensor, steps: Tensor, write: Tensor, read: Tensor, rates: Tensor, chunk: int) -> Any:
        """``(B, L, E)`` the output, and the ``(B, N, E)`` states in front of each chunk."""
        powers = rates.T.contiguous() / math.log(2)
        state, outputs, starts = inputs.new_zeros(len(inputs), *powers.shape), [], []
        work = inputs.new_empty(2, min(chunk, inputs.shape[1]), *state.shape)
        for x, dt, b, c in zip(*_chunks(chunk, inputs, steps), *_chunks(chunk, write, read, dim=3), strict=True):
            starts.append(state)
            decay, states = work[:, : len(dt)].unbind()
            _states(state, dt * x, b, _decay(dt, powers, decay), states)
            state = states[-1].clone()
            outputs.append(c.mT @ states)  # (K, B, 1, E)
        return torch.cat(outputs).squeeze(2).transpose(0, 1), *starts

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the inputs and the states in front of the chunks."""
        *tensors, ctx.chunk = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor, *_: Any) -> Any:
        """Gradients of all tensors."""
        return *_ScanGradient.apply(wanted, ctx.chunk, *ctx.saved_tensors), None

    @staticmethod
    def vmap(info: Any, dims: Any, *values: Any) -> Any:
        """For gradients of single samples."""
        return _one_by_one(_Scan.apply, info.batch_size, dims, values)


class _ScanGradient(torch.autograd.Function):
    """The same recurrence from the last token to the first, chunk by chunk; states are made again."""

    @staticmethod
    def forward(wanted: Tensor, chunk: int, *saved: Tensor) -> Any:
        """Gradients of inputs, steps, write, read and rates."""
        inputs, steps, write, read, rates, *starts = saved
        rates = rates.T.contiguous()
        powers = rates / math.log(2)
        channels, chosen = _chunks(chunk, inputs, steps, wanted), _chunks(chunk, write, read, dim=3)
        parts = list(zip(*channels, *chosen, starts, strict=True))
        later, of_rates, found = torch.zeros_like(starts[0]), torch.zeros_like(rates), []
        work = inputs.new_empty(3, min(chunk, inputs.shape[1]), *later.shape)
        for x, dt, g, b, c, state in reversed(parts):
            decay, states, of_states = work[:, : len(dt)].unbind()
            dx = dt * x
            _states(state, dx, b, _decay(dt, powers, decay), states)
            later = _of_states(later, g, c, decay, of_states)
            of_exponent = decay.mul_(of_states)
            of_exponent[0].mul_(state)
            of_exponent[1:].mul_(states[:-1])
            of_dx, of_write, of_read = b.mT @ of_states, of_states @ dx.mT, states @ g.mT
            of_steps = torch.mul(of_exponent, rates, out=states).sum(2, keepdim=True) + of_dx * x
            of_rates += of_exponent.mul_(dt).sum((0, 1))
            found.append((of_dx * dt, of_steps, of_write.mT, of_read.mT))
        of_tokens = (torch.cat(part).squeeze(2).transpose(0, 1) for part in zip(*found[::-1], strict=True))
        return *of_tokens, of_rates.T

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing: gradients are of first order."""

    @staticmethod
    def vmap(info: Any, dims: Any, *values: Any) -> Any:
        """For gradients of single samples."""
        return _one_by_one(_ScanGradient.apply, info.batch_size, dims, values)


def _one_by_one(function: Callable[..., Any], count: int, dims: Sequence[int | None], values: Sequence[Any]) -> Any:
    """Results of a function for one sample after another, stacked, and their dimensions, as a rule of vmap has them."""
    given = list(zip(values, dims, strict=True))
    rows = [function(*(v if dim is None else v.select(dim, k) for v, dim in given)) for k in range(count)]
    return tuple(torch.stack(part) for part in zip(*rows, strict=True)), (0,) * len(rows[0])


def _chunks(chunk: int, *values: Tensor, dim: int = 2) -> list[Sequence[Tensor]]:
    """The chunks of each ``(B, L, D)`` value, ``(K, B, 1, D)``, or ``(K, B, D, 1)`` for ``dim=3``."""
    return [value.transpose(0, 1).unsqueeze(dim).split(chunk) for value in values]


def _decay(dt: Tensor, powers: Tensor, out: Tensor) -> Tensor:
    """``(K, B, N, E)`` ``exp(dt A)`` of ``A / log(2)``: a power of 2 takes a third of the time."""
    return torch.mul(dt, powers, out=out).exp2_()


def _states(state: Tensor, dx: Tensor, b: Tensor, decay: Tensor, out: Tensor) -> None:
    """``(K, B, N, E)`` the states behind every token of a chunk, of the one in front of it."""
    torch.mul(dx, b, out=out)
    for share, gained in zip(decay.unbind(), out.unbind(), strict=True):
        state = gained.addcmul_(share, state)


def _of_states(later: Tensor, g: Tensor, c: Tensor, decay: Tensor, out: Tensor) -> Tensor:
    """``(K, B, N, E)`` gradients of the states of a chunk, and ``(B, N, E)`` that of the one in front of it.

    ``later`` is that of the last state by the chunks behind.
    """
    torch.mul(g, c, out=out)
    shares, found = decay.unbind(), out.unbind()
    found[-1].add_(later)
    for k in range(len(found) - 1, 0, -1):
        found[k - 1].addcmul_(found[k], shares[k])
    return found[0] * shares[0]


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
            return ScanOutput(torch.addcmul(scanned, self.skip, x) * F.silu(gate), gate, chosen)


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
