"""Adapters against the formulas typed out for one slot and one sample, and the worked numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import SSF, Adapter, LoRA, RankOne

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _same_numbers():
    """Whatever ran before: components of random weights may all be too weak to answer."""
    GENERATOR.manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def shaken(bank):
    for parameter in bank.double().parameters():
        parameter.data.copy_(rand(*parameter.shape))
    return bank.eval()


BANKS = {
    "lora": lambda: LoRA(3, 5, 5, 2, scale=0.5),
    "rank_one": lambda: RankOne(3, 5, 5, 2, topk=3, temperature=0.5),
    "adapter": lambda: Adapter(3, 5, 4),
    "scale_shift": lambda: SSF(3, 5, std=0.0),
}


@pytest.mark.parametrize("name", BANKS)
def test_nothing_is_changed_at_first(name):
    bank, x, y = BANKS[name]().double(), rand(2, 4, 5), rand(2, 4, 5)
    assert torch.equal(bank.adapted(x, y, [(1,)]), y)


def test_lora():
    bank, x, y = shaken(LoRA(3, 5, 7, 2, scale=0.5)), rand(2, 4, 5), rand(2, 4, 7)
    expected = y + 0.5 * torch.einsum("...i,ri,ro->...o", x, bank.down[1], bank.up[1])
    assert_close(bank.adapted(x, y, [(1,)]), expected)
    both = expected + 0.5 * torch.einsum("...i,ri,ro->...o", x, bank.down[2], bank.up[2])
    assert_close(bank.adapted(x, y, [(1, 2)]), both)


def test_lora_of_a_part_of_a_fused_projection():
    bank, x, y = shaken(LoRA(2, 5, 4, 2, start=4)), rand(2, 5), rand(2, 12)
    out = bank.adapted(x, y, [(0,)])
    assert_close(out[:, 4:8], y[:, 4:8] + x @ bank.down[0].T @ bank.up[0])
    assert torch.equal(out[:, :4], y[:, :4])
    assert torch.equal(out[:, 8:], y[:, 8:])


def test_adapter():
    bank, x, y = shaken(Adapter(2, 5, 3, scale=0.3, dropout=0.5)), rand(2, 4, 5), rand(2, 4, 5)
    down, up = nn.Linear(5, 3).double(), nn.Linear(3, 5).double()
    down.load_state_dict({"weight": bank.down[1], "bias": bank.down_bias[1]})
    up.load_state_dict({"weight": bank.up[1].T, "bias": bank.up_bias[1, 0]})
    assert_close(bank.adapted(x, y, [(1,)]), y + 0.3 * up(down(x).relu()))
    assert sum(p.numel() for p in Adapter(1, 768, 64).parameters()) == 99136  # as published
    torch.manual_seed(0)
    dropped = bank.train().adapted(x, y, [(1,)])
    assert not torch.allclose(dropped, y + 0.3 * up(down(x).relu()))


def test_scale_shift_in_channels_last_and_first():
    bank, y = shaken(SSF(2, 5)), rand(2, 4, 5)
    expected = y * bank.gamma[1] + bank.beta[1]
    assert_close(bank.adapted(y, y, [(1,)]), expected)
    bank.channel_dim = 1
    assert_close(bank.adapted(y, y.mT.unsqueeze(-1), [(1,)]), expected.mT.unsqueeze(-1))


def test_components_choose_themselves():
    bank = RankOne(1, 4, 4, 4, topk=2, temperature=0.1).double().train()
    z = torch.tensor([[3.0, 4.0, 0.0, -1.0]], dtype=torch.float64)
    expected = torch.tensor([[0.3700, 3.5066, 0.0, 0.0]], dtype=torch.float64)
    assert_close(bank.weigh(z, [(0,)]), expected, rtol=0, atol=1e-4)  # the worked numbers
    assert_close(bank.eval().weigh(z, [(0,)]), expected, rtol=0, atol=1e-4)
    bank.threshold = 0.7
    expected[0, 0] = 0
    assert_close(bank.weigh(z, [(0,)]), expected, rtol=0, atol=1e-4)  # below it, and not scaled up
    assert bank.weigh(torch.zeros(1, 4).double(), [(0,)]).isfinite().all()


def test_components_of_all_tasks_compete():
    bank, x, y = shaken(RankOne(2, 5, 6, 2, topk=4, temperature=1e9, threshold=-1.0)), rand(3, 5), rand(3, 6)
    mean = sum(torch.einsum("bi,ri,ro->bo", x, bank.down[i], bank.up[i]) for i in (0, 1)) / 4
    assert_close(bank.adapted(x, y, [(0, 1)]), y + mean)  # all answer with the same weight


@pytest.mark.parametrize("name", BANKS)
def test_several_paths_are_separate_passes(name):
    bank = shaken(BANKS[name]())
    x, y = rand(6, 4, 5), rand(6, 4, 5)
    parts = [bank.adapted(x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2], [(slot,)]) for i, slot in enumerate((2, 0, 1))]
    assert_close(bank.adapted(x, y, [(2,), (0,), (1,)]), torch.cat(parts), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", BANKS)
def test_a_slot_is_copied_and_others_get_no_gradient(name):
    bank = shaken(BANKS[name]())
    x, y = rand(2, 5), rand(2, 5)
    before = [p.detach().clone() for p in bank.parameters()]
    bank.copy_slot(0, 2)
    assert torch.equal(bank.adapted(x, y, [(2,)]), bank.adapted(x, y, [(0,)]))
    assert all(torch.equal(p[:2], old[:2]) for p, old in zip(bank.parameters(), before, strict=True))
    bank.adapted(x, y, [(1,)]).square().sum().backward()
    for parameter in bank.parameters():
        assert (parameter.grad[[0, 2]] == 0).all()
        assert parameter.grad[1].any()
    assert [(id(p), rows.tolist()) for p, rows in bank.protected([1])] == [(id(p), [0, 2]) for p in bank.parameters()]
    assert not list(bank.protected([0, 1, 2]))
