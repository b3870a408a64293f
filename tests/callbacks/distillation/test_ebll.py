"""EBLL: its two terms on a run by hand, and strength 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import EBLL, LwF
from lightning_cl.nn.autoencoders import FeatureAutoencoders

from ..by_hand import Net, TaughtByHand, assert_close, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(EBLL(0.0))


def test_without_alpha_it_is_lwf() -> None:
    found, expected = weights(run(EBLL(alpha=0.0, steps=2))), weights(run(LwF()))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


class ByFormula(TaughtByHand):
    """With the autoencoders of the run."""

    def __init__(self, net: Net, alpha: float) -> None:
        self.alpha, self.bank = alpha, net.continual.parts["ebll"].autoencoders
        super().__init__(net)

    def term(self, teacher: Net, x: Tensor) -> Tensor:
        new, old = self.net(x)[:, self.old] / 2, teacher(x)[:, self.old] / 2
        p = old.softmax(1)
        lwf = 4 * (p * (p.log() - new.log_softmax(1))).sum(1).mean()
        f, g = self.net.body(x), teacher.body(x)
        code = 0.0
        for t in range(self.task):
            bank: FeatureAutoencoders = self.bank
            w, b, mean, std = bank.encoder[t], bank.encoder_bias[t], bank.mean[t], bank.deviation[t]
            one, two = (torch.sigmoid(torch.sigmoid((h - mean) / std) @ w.T + b) for h in (f, g.detach()))
            code = code + ((one - two) ** 2).sum(1).mean()
        return lwf + self.alpha / 2 * code


def test_a_run_is_the_formulas() -> None:
    net = run(EBLL(alpha=2.0, code=4, steps=20))
    assert_close(net, ByFormula(net, 2.0), 1e-5)  # codes are of 32 bits
