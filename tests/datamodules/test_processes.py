"""Several processes do together what one does alone: same batches, same weights, every evaluation sample once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_stream import TinyModule, make_stream, make_trainer
from torch import Tensor
from torch.testing import assert_close

pytestmark = pytest.mark.filterwarnings("ignore")

#: Tasks of 7, 11 and 15 samples end with batches of 2, 1 and 5: fewer samples than three processes, and one short.
BATCH_SIZE = 5


class Recorder(Callback):
    """Writes the labels that each process trains on, and the samples that it evaluates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained: list[tuple[int, int, list[int]]] = []
        self.evaluated: list[tuple[int, list[int]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        real = trainer.datamodule.train_batch(batch_idx).real
        self.trained.append((trainer.current_epoch, batch_idx, batch[1][:real].tolist()))

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        samples = trainer.datamodule.eval_batch(args[2])
        assert args[1][1][: len(samples.labels)].tolist() == samples.labels.tolist()
        self.evaluated.append((trainer.current_epoch, samples.index.tolist()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save((self.trained, self.evaluated), self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def fit(devices: int, callbacks: Any = (), dropout: float = 0.0, ckpt_path: Any = None, **options: Any) -> TinyModule:
    stream_options = {"batch_size": options.pop("batch_size", BATCH_SIZE), "num_workers": options.pop("num_workers", 0)}
    seed_everything(1)
    module = TinyModule(dropout)
    processes = {"devices": devices, "strategy": "ddp_fork"} if devices > 1 else {}
    trainer = make_trainer(None, callbacks, **processes, **options)
    trainer.fit(module, datamodule=make_stream(**stream_options), ckpt_path=ckpt_path)
    return module


def weights(module: LightningModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("devices", [2, 3])
def test_weights_and_samples_are_those_of_one_process(tmp_path, devices):
    alone = fit(1, [Recorder(tmp_path)])
    together = fit(devices, [Recorder(tmp_path)])
    assert_close(weights(together), weights(alone), rtol=0, atol=1e-5)
    trained, evaluated = torch.load(tmp_path / "1-0.pt")
    ranks = [torch.load(tmp_path / f"{devices}-{rank}.pt") for rank in range(devices)]
    for step, (epoch, batch_idx, labels) in enumerate(trained):
        shares = [rank[0][step] for rank in ranks]
        assert [share[:2] for share in shares] == [(epoch, batch_idx)] * devices
        assert [label for share in shares for label in share[2]] == labels
    for epoch in range(5):
        expected = sorted(i for e, index in evaluated if e == epoch for i in index)
        found = sorted(i for rank in ranks for e, index in rank[1] if e == epoch for i in index)
        assert found == expected
        assert len(set(found)) == len(found) == (6, 6, 12, 18, 18)[epoch]


def test_accumulated_gradients_are_those_of_one_process():
    alone = fit(1, accumulate_grad_batches=2)
    assert_close(weights(fit(3, accumulate_grad_batches=2)), weights(alone), rtol=0, atol=1e-5)


def test_resumed_processes_end_with_the_same_bits(tmp_path):
    whole = weights(fit(2, [every_step(tmp_path)], dropout=0.5))
    # In mid-epoch, at the last batch of task 0, and at the last batch of an epoch inside task 2.
    for name in ("epoch=0-step=1", "epoch=1-step=4", "epoch=3-step=10"):
        resumed = fit(2, dropout=0.5, ckpt_path=tmp_path / f"{name}.ckpt")
        assert_close(weights(resumed), whole, rtol=0, atol=0, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_resumed_with_another_number_of_processes(tmp_path, before, after):
    whole = weights(fit(before, [every_step(tmp_path)]))
    resumed = fit(after, ckpt_path=tmp_path / "epoch=2-step=6.ckpt")
    assert_close(weights(resumed), whole, rtol=0, atol=1e-5)


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{epoch}-{step}", every_n_train_steps=1, save_top_k=-1)
