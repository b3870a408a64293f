"""OpenVAE: its loss by hand, what it replays, and what a checkpoint keeps of it."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.models import OpenVAE


class Encoder(nn.Module):
    """Means by a linear map, and deviations that are practically 0."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mean(x), torch.full((len(x), 3), -30.0)], 1)


def model(**options: Any) -> OpenVAE:
    torch.manual_seed(0)
    return OpenVAE(Encoder(), nn.Linear(3, 4), 3, 5, noise=0.0, **options)


def by_hand(net: OpenVAE, x: Tensor, y: Tensor, beta: float) -> float:
    mean = net.encoder.mean(x)
    nats = -0.5 * (1 + torch.log(torch.tensor(1e-8)) - mean.square()).sum() / mean.numel()
    return float((F.cross_entropy(net.head(mean), y) + (net.decoder(mean) - x).abs().mean() + beta * nats).detach())


def test_the_loss_is_that_of_the_formula_over_own_and_drawn_samples() -> None:
    net, x, y = model(beta=0.3), torch.rand(6, 4), torch.tensor([0, 1, 2, 3, 4, 0])
    assert float(net.training_step((x, y), 0).detach()) == pytest.approx(by_hand(net, x, y, 0.3), rel=1e-5)
    old, label = torch.rand(1, 4), torch.tensor([2])
    net.drawn = old, label
    joined = torch.cat([x, old.expand(6, 4)]), torch.cat([y, label.expand(6)])
    assert float(net.training_step((x, y), 0).detach()) == pytest.approx(by_hand(net, *joined, 0.3), rel=1e-5)


def test_what_was_drawn_is_in_the_checkpoint() -> None:
    net, other, checkpoint = model(), model(), dict[str, Any]()
    net.drawn = torch.rand(7, 4), torch.arange(7) % 5
    net.on_save_checkpoint(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    other.on_load_checkpoint(torch.load(file, weights_only=True))
    assert other.drawn is not None
    assert torch.equal(other.drawn[0], net.drawn[0])
