"""Calibrated prototypes against the worked numbers and a loop typed from the paper."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.prototypes import PrototypeBank
from lightning_cl.nn.teen import TEENBank, calibrate, cosine_logits


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_worked_numbers():
    base, new = tensor([[1, 0], [0, 1]]), tensor([[0.6, 0.8]])
    weights = torch.softmax(16 * new @ base.T, dim=1)
    assert_close(weights, tensor([[0.039166, 0.960834]]), rtol=0, atol=1e-6)
    assert_close(calibrate(new, base, 0.5, 16.0), tensor([[0.320364, 0.899585]]), rtol=0, atol=1e-6)
    assert_close(calibrate(7 * new, 3 * base, 0.5, 16.0), calibrate(new, base, 0.5, 16.0))  # lengths play no part


def test_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    new, base = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (3, 4))
    for row, p in zip(calibrate(new, base, 0.3, 8.0), new, strict=True):
        p = p / p.norm()
        cosines = torch.stack([torch.dot(p, b / b.norm()) for b in base])
        a = (8.0 * cosines).exp() / (8.0 * cosines).exp().sum()
        d = sum(w * b / b.norm() for w, b in zip(a, base, strict=True))
        assert_close(row, 0.7 * p + 0.3 * d / d.norm())


def filled(alpha: float) -> tuple[TEENBank, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(40, 6, generator=generator), torch.arange(4).repeat(10)
    bank = TEENBank(6, 6, alpha, 16.0, 16.0)
    first = labels < 3
    bank.update(features[first], labels[first])
    bank.finish_base(torch.tensor([0, 1, 2]))
    bank.update(features[~first], labels[~first])
    return bank, features, labels


def test_without_calibration_it_is_the_cosine_classifier_of_class_means():
    bank, features, labels = filled(alpha=0.0)
    plain = PrototypeBank(6, 6, distance="cosine", normalize=False)
    plain.update(features, labels)
    assert_close(bank(features), 16 * plain(features))


def test_later_sessions_leave_earlier_rows_alone():
    bank, _, _ = filled(alpha=0.5)
    before = bank.rows.clone()
    bank.update(torch.randn(5, 6), torch.full((5,), 4))
    assert torch.equal(bank.rows[:4], before[:4])
    assert torch.equal(bank.rows[:3], bank.means[:3])  # base classes keep their means
    assert not torch.equal(bank.rows[3], bank.means[3])
    assert bank.rows[5].abs().sum() == 0


def test_classes_without_samples_are_never_predicted():
    bank, features, _ = filled(alpha=0.5)
    logits = bank(features)
    assert torch.isneginf(logits[:, 4:]).all()
    assert logits[:, :4].abs().max() <= 16
    assert bank(features.double()).dtype == torch.float64


def test_the_state_says_whether_the_base_session_is_over():
    bank, features, _ = filled(alpha=0.5)
    fresh = TEENBank(6, 6, 0.5, 16.0, 16.0)
    assert not fresh.ready
    fresh.load_state_dict(bank.state_dict())
    assert fresh.ready
    assert torch.equal(fresh(features), bank(features))


def test_cosine_logits_do_not_depend_on_lengths():
    x, w = torch.randn(3, 4), torch.randn(5, 4)
    assert_close(cosine_logits(2 * x, 5 * w, 10.0), 10 * torch.nn.functional.cosine_similarity(x[:, None], w[None], -1))


@pytest.mark.parametrize("name", ["alpha", "temperature", "scale"])
def test_out_of_range(name):
    from lightning_cl.callbacks import TEEN

    with pytest.raises(ValueError, match=f"`{name}` is -0.5"):
        TEEN(**{name: -0.5})
