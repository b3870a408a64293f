"""OpenVAE: its loss by hand, what it replays, and what a checkpoint keeps of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.runs import in_forked_processes
from lightning import Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource
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


@pytest.mark.filterwarnings("ignore")
def test_all_processes_draw_alike_from_all_samples(tmp_path: Path) -> None:
    def rank() -> None:
        seed_everything(0, verbose=False)
        labels = torch.arange(5).repeat_interleave(5)
        data = TensorDataset(torch.eye(5)[labels][:, :4] + 0.1 * torch.rand(25, 4), labels)
        stream = ContinualDataModule(DatasetSource(data, data), ClassIncremental(5, class_order="natural"), 3, 2)
        net = model(rounds=2)
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"enable_model_summary": False, "limit_val_batches": 0, "default_root_dir": tmp_path}
        trainer = Trainer(accelerator="cpu", strategy="ddp", devices=2, max_epochs=-1, **quiet)
        trainer.fit(net, datamodule=stream)
        torch.save({"drawn": net.drawn, **net.bound.state_dict()}, tmp_path / f"rank{trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{at}.pt", weights_only=True) for at in (0, 1))
    assert len(first["drawn"][1]) > 5
    assert all(torch.equal(*pair) for pair in zip(first["drawn"], second["drawn"], strict=True))
    assert all(torch.equal(first[name].nan_to_num(), second[name].nan_to_num()) for name in ("means", "weibull"))
