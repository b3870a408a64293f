"""Streams of text, of numbers and of data that is only read once: resumed to the same bits, alone as in processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.runs import in_forked_processes
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_stream import make_trainer
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError
from torchmetrics.regression import SpearmanCorrCoef

from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay
from lightning_cl.datamodules import (
    ContinualDataModule,
    DatasetSource,
    DomainIncremental,
    IterableSource,
    SampleIncremental,
    TextSource,
)

pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = [" ".join("abcdefgh"[(i + j) % 8] for j in range(1 + i % 5)) for i in range(24)]


def letters(texts: list[str], padding: bool, return_tensors: str) -> dict[str, Tensor]:
    """A tokenizer: 1 to 8, and 0 for padding."""
    rows = [torch.tensor([1 + ord(word) - ord("a") for word in text.split()]) for text in texts]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Regressor(LightningModule):
    """The mean of embedded tokens, or of numbers, through two layers with dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        if attention_mask is None:
            return self.net(x)[:, :1]
        kept = attention_mask[..., None]
        return self.net((self.words(x) * kept).sum(1) / kept.sum(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if isinstance(batch, dict):
            logits = self(batch["input_ids"], batch["attention_mask"])
            return nn.functional.cross_entropy(logits, batch["labels"])
        return (self(batch[0])[:, 0] - batch[1]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        if not isinstance(batch, dict):
            self(batch[0])
            return None
        logits = self(batch["input_ids"], batch["attention_mask"])
        return {"preds": logits.softmax(1)[:, 1], "target": batch["labels"].float()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def sentences(num_workers: int = 2) -> ContinualDataModule:
    labels = [i % 2 for i in range(24)]
    domains = {"train_domains": [i % 3 for i in range(24)], "test_domains": [i % 3 for i in range(24)]}
    source = TextSource(((WORDS, labels), (WORDS, labels)), letters, **domains)
    return ContinualDataModule(source, DomainIncremental(), batch_size=3, num_workers=num_workers)


def table() -> ContinualDataModule:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(23, 4, generator=generator)
    data = TensorDataset(x, x.sum(1))
    domains = {"train_domains": [i % 2 for i in range(23)], "test_domains": [i % 2 for i in range(23)]}
    return ContinualDataModule(DatasetSource(data, data, **domains, classes=False), DomainIncremental(), batch_size=5)


def sequence() -> ContinualDataModule:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    items = list(zip(x, x.sum(1), strict=True))
    source = IterableSource(lambda: iter(items), 40, items[:9])
    return ContinualDataModule(source, SampleIncremental(2, order="stream"), batch_size=4, num_workers=2)


def fit(stream: ContinualDataModule, metric: Any, dropout: float = 0.5, ckpt_path: Any = None, **options: Any) -> Any:
    seed_everything(1, verbose=False)
    module, evaluation = Regressor(dropout), ContinualEvaluation(report=False, print_table=False, metric=metric)
    replay = ExperienceReplay(memory_size=8, batch_size=3, store="sample")
    trainer = make_trainer(None, [replay, evaluation, *options.pop("callbacks", [])], **options)
    trainer.fit(module, datamodule=stream, ckpt_path=ckpt_path)
    return {**module.state_dict()}, evaluation.matrix()


@pytest.mark.parametrize("make", [sentences, sequence])
def test_a_resumed_run_ends_in_the_same_bits_with_workers_and_a_memory_of_samples(make: Any, tmp_path: Path) -> None:
    every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    whole = fit(make(), MeanSquaredError(), callbacks=[every])
    assert whole[1][-1].isfinite().all()
    resumed = fit(make(), MeanSquaredError(), ckpt_path=tmp_path / "step=4.ckpt")
    assert_close(resumed, whole, rtol=0, atol=0, equal_nan=True)


MEASURED = [(table, MeanSquaredError), (table, SpearmanCorrCoef), (lambda: sentences(0), MeanSquaredError)]


def test_two_processes_measure_and_learn_what_one_does(tmp_path: Path) -> None:
    """A metric of sums, one that collects what it is given, and sentences whose lengths differ between processes."""

    def results(**options: Any) -> list[Any]:
        return [fit(make(), metric(), dropout=0.0, **options) for make, metric in MEASURED]

    def rank() -> None:
        found = results(devices=2, strategy="ddp_find_unused_parameters_true")
        torch.save(found, tmp_path / f"{torch.distributed.get_rank()}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    alone = results()
    for number in range(2):
        assert_close(torch.load(tmp_path / f"{number}.pt"), alone, rtol=0, atol=1e-5, equal_nan=True)
