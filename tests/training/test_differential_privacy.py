"""DP-SGD: per-sample clipping against a plain loop, its sensitivity, the noise's size, and the accountant's budget."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.training import differential_privacy as private
from lightning_cl.training.differential_privacy import clipped_sum, noise_for, noisy_step, private_fit


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))


def samples(count: int = 9) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 4


def sums(net: nn.Module, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    def loss(weights: dict[str, Tensor], rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(net, weights, (rows,)), wanted)

    return clipped_sum(loss, dict(net.named_parameters()), x, y, clip)


def by_loop(net: nn.Module, x: Tensor, y: Tensor, clip: float) -> list[Tensor]:
    total = [torch.zeros_like(p) for p in net.parameters()]
    for row, wanted in zip(x, y, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(net(row[None]), wanted[None]), list(net.parameters()))
        length = float(torch.cat([g.flatten() for g in gradients]).norm())
        total = [t + g * min(1.0, clip / length) for t, g in zip(total, gradients, strict=True)]
    return total


@pytest.mark.parametrize("clip", [0.3, 1.0, 1e6])
def test_gradients_are_clipped_sample_by_sample(clip: float) -> None:
    net, (x, y) = network(), samples()
    for found, expected in zip(sums(net, x, y, clip).values(), by_loop(net, x, y, clip), strict=True):
        assert_close(found, expected)


def test_a_sample_moves_the_sum_by_no_more_than_the_bound() -> None:
    net, (x, y) = network(), samples()
    x[4] *= 1e3
    whole, rest = sums(net, x, y, 0.5), sums(net, x[torch.arange(9) != 4], y[torch.arange(9) != 4], 0.5)
    moved = torch.cat([(whole[name] - rest[name]).flatten() for name in whole]).norm()
    assert 0 < float(moved) <= 0.5 + 1e-5
    x[4] = torch.inf
    assert all(bool(total.isfinite().all()) for total in sums(net, x, y, 0.5).values())
    assert not any(total.any() for total in sums(net, x[:0], y[:0], 0.5).values())


def test_a_step_adds_noise_of_the_said_size_and_divides_by_the_expected_number() -> None:
    weights, total = {"w": torch.ones(200, 200)}, {"w": torch.full((200, 200), 6.0)}
    noisy_step(weights, total, scale=2.0, expected=4.0, lr=0.1, decay=0.5, generator=torch.Generator().manual_seed(0))
    assert float(weights["w"].mean()) == pytest.approx(1 - 0.1 * (6 / 4 + 0.5), abs=2e-3)
    assert float(weights["w"].std()) == pytest.approx(0.1 * 2 / 4, rel=0.02)


def test_without_noise_and_clipping_it_is_gradient_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "noise_for", lambda *_: 0.0)
    net, plain, (x, y) = network(), network(), samples()
    private_fit(net, x, y, 1.0, 1e-3, steps=5, sample_rate=1.0, lr=0.2, clip=1e6, weight_decay=0.01)
    optimizer = torch.optim.SGD(plain.parameters(), 0.2, weight_decay=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    for found, expected in zip(net.parameters(), plain.parameters(), strict=True):
        assert_close(found, expected)


def test_batches_are_poisson_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(private, "noise_for", lambda *_: 0.0)
    monkeypatch.setattr(
        private,
        "clipped_sum",
        lambda _, weights, x, y, clip: sizes.append(len(y)) or {k: 0 * w for k, w in weights.items()},
    )
    x, y = samples(400)
    private_fit(network(), x, y, 1.0, 1e-4, steps=200, sample_rate=0.1, lr=0.1)
    found = torch.tensor(sizes).double()
    assert float(found.mean()) == pytest.approx(40, abs=1.5)
    assert float(found.var()) == pytest.approx(400 * 0.1 * 0.9, rel=0.35)


@pytest.mark.filterwarnings("ignore")
def test_the_budget_is_kept_by_the_accountant() -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is optional")
    noise = noise_for(1.0, 1e-5, 0.05, 100)
    spent = accountants.RDPAccountant()
    spent.history = [(noise, 0.05, 100)]
    assert 0.9 < spent.get_epsilon(1e-5) <= 1.0
    assert noise_for(0.5, 1e-5, 0.05, 100) > noise


def test_what_would_give_samples_away_is_refused() -> None:
    x, y = samples()
    with pytest.raises(ValueError, match=r"below 0\.111"):
        private_fit(network(), x, y, 1.0, 0.2, steps=1, sample_rate=0.5, lr=0.1)
    mixing = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="`1` is batch norm"):
        private_fit(mixing, x, y, 1.0, 1e-3, steps=1, sample_rate=0.5, lr=0.1)
