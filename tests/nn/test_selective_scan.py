"""The selective scan against its recurrence, typed out one number after another, and the call of the kernel."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.nn import selective_scan as scans
from lightning_cl.nn.selective_scan import (
    Coefficients,
    SelectiveBlock,
    map_orders,
    scan_in_orders,
    selective_scan,
)


def drawn(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Coefficients]:
    g = torch.Generator().manual_seed(tokens)
    b, e, n = 2, 3, 4
    steps = torch.rand(b, tokens, e, generator=g) * 2
    write, read = torch.randn(b, tokens, n, generator=g), torch.randn(b, tokens, n, generator=g) / n
    rates, x = -0.05 - torch.rand(e, n, generator=g) * 3, torch.randn(b, tokens, e, generator=g)
    return x.to(dtype), Coefficients(*(value.to(dtype) for value in (steps, write, read, rates)))


def recurrence(x: Tensor, c: Coefficients) -> Tensor:
    """In doubles of Python."""
    found = torch.zeros(x.shape, dtype=torch.float64)
    steps, write, read, rates = (value.double().tolist() for value in c)
    for b, sample in enumerate(x.double().tolist()):
        for e in range(x.shape[2]):
            h = [0.0] * len(rates[e])
            for t, token in enumerate(sample):
                dt = steps[b][t][e]
                h = [
                    math.exp(dt * a) * known + dt * w * token[e]
                    for a, known, w in zip(rates[e], h, write[b][t], strict=True)
                ]
                found[b, t, e] = sum(r * known for r, known in zip(read[b][t], h, strict=True))
    return found


@pytest.mark.parametrize(("tokens", "chunk"), [(0, 16), (1, 16), (49, 16), (49, 49), (196, 16), (37, 5)])
def test_the_scan_equals_its_recurrence(tokens: int, chunk: int) -> None:
    x, c = drawn(tokens)
    torch.testing.assert_close(selective_scan(x, c, chunk).double(), recurrence(x, c), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tokens", [0, 1, 16, 17, 49, 196])
@pytest.mark.parametrize("size", [0, 2**10, 2**15, 2**30])
def test_chunks_are_about_as_long(tokens: int, size: int) -> None:
    """No longer than what a cache holds, as few as such chunks can be, and none longer than so many need."""
    length, longest = scans._chunk(tokens, size), max(min(scans.CACHED // max(size, 1), scans.LONGEST), 1)
    assert 1 <= length <= longest
    count = -(-tokens // length)
    assert count == -(-tokens // longest)
    assert tokens > count * (length - 1) or tokens == 0


def test_the_gradient_of_the_scan() -> None:
    x, c = drawn(7, torch.float64)
    leaves = [value.requires_grad_() for value in (x, *c)]
    assert torch.autograd.gradcheck(lambda x, *values: selective_scan(x, Coefficients(*values), 3), leaves)


def test_gradients_of_single_samples() -> None:
    """By `vmap`, as importances of weights are made."""
    x, c = drawn(6, torch.float64)

    def of_one(x: Tensor, steps: Tensor, write: Tensor, read: Tensor, rates: Tensor) -> Tensor:
        values = (value[None] for value in (steps, write, read))
        return selective_scan(x[None], Coefficients(*values, rates), 4).square().sum()

    found = torch.func.vmap(torch.func.grad(of_one, argnums=4), in_dims=(0, 0, 0, 0, None))(x, *c)
    for row in range(2):
        rates = c.rates.clone().requires_grad_()
        one = of_one(x[row], c.steps[row], c.write[row], c.read[row], rates)
        torch.testing.assert_close(found[row], torch.autograd.grad(one, rates)[0])


def test_an_earlier_token_does_not_see_a_later_one() -> None:
    x, c = drawn(9)
    changed = x.clone()
    changed[:, 5] += 1
    before, after = selective_scan(x, c), selective_scan(changed, c)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_orders_of_a_map() -> None:
    """0 1 / 2 3: rows, rows reversed, columns, columns reversed."""
    assert map_orders(2).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3], [3, 1, 2, 0]]


def test_a_scan_in_orders_is_the_sum_of_scans() -> None:
    x, c = drawn(4)
    total = torch.zeros_like(x)
    for order in map_orders(2):
        moved = Coefficients(c.steps[:, order], c.write[:, order], c.read[:, order], c.rates)
        scanned = selective_scan(x[:, order], moved)
        for place, token in enumerate(order.tolist()):
            total[:, token] += scanned[:, place]
    torch.testing.assert_close(scan_in_orders(x, c, map_orders(2)), total)


def test_the_kernel_is_given_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel in its own words, computed by the recurrence."""

    def kernel(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        assert u.is_contiguous()
        assert u.shape == delta.shape == (2, 3, 5)
        assert B.shape == C.shape == (2, 4, 5)
        return recurrence(u.transpose(1, 2), Coefficients(delta.mT, B.mT, C.mT, A)).transpose(1, 2)

    x, c = drawn(5)
    torch.testing.assert_close(scans._of_kernel(kernel, x, c).float(), selective_scan(x, c))


def test_without_the_package_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(scans, "import_module", missing)
    scans._kernel.cache_clear()
    assert scans._kernel() is None
    scans._kernel.cache_clear()


def test_a_block_against_its_formula() -> None:
    torch.manual_seed(0)
    block, tokens = SelectiveBlock(6, states=3, rank=2), torch.randn(2, 4, 6)
    x, z = tokens @ block.project.weight[:6].T, tokens @ block.project.weight[6:].T
    low, write, read = (tokens.new_tensor((x @ block.choose.weight.T).tolist())).split([2, 3, 3], dim=2)
    steps = torch.log1p(torch.exp(low @ block.widen.weight.T + block.widen.bias))
    rates = -torch.tensor([1.0, 2.0, 3.0]).repeat(6, 1)
    y = recurrence(x, Coefficients(steps, write, read, rates)).float()
    torch.testing.assert_close(block(tokens).tokens, (y + x) * z * torch.sigmoid(z), rtol=1e-4, atol=1e-5)
    closed = SelectiveBlock(6, 3)
    closed.close_gate()
    assert torch.equal(closed(tokens).tokens, torch.zeros(2, 4, 6))


def test_step_sizes_begin_between_a_thousandth_and_a_tenth() -> None:
    bias = SelectiveBlock(5).widen.bias
    torch.testing.assert_close(torch.log1p(bias.exp())[[0, 2, 4]], torch.tensor([1e-3, 1e-2, 1e-1]))
