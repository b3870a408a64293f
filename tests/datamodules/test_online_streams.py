"""The online streams in a fit: their order survives batch sizes, workers and processes, and samples may come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_stream import TinyModule, make_trainer

from lightning_cl.datamodules import (
    ArraySource,
    ClassIncremental,
    ContinualDataModule,
    GeneralizedCIL,
    IBlurry,
    PowerLaw,
    Repetition,
    SiBlurry,
    StreamTable,
)

pytestmark = pytest.mark.filterwarnings("ignore")
NUM_CLASSES, PER_CLASS = 6, 12
SCENARIOS = {
    "si-blurry": SiBlurry(3, seed=4),
    "i-blurry": IBlurry(3, 50, 40),
    "gcil": GeneralizedCIL(4, 4, 20),
    "repetition": Repetition(5, 2, samples_per_class=7),
    "power-law": PowerLaw(ClassIncremental(3)),
}


def make_source() -> ArraySource:
    """Every pixel of image ``i`` is ``i``, so a batch tells which samples it holds."""
    labels = np.arange(NUM_CLASSES * PER_CLASS) % NUM_CLASSES
    images = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None], (len(labels), 8, 8)).copy()
    return ArraySource((images, labels), (images[:12], labels[:12]), augment="none")


def make_stream(name: str, **options: Any) -> ContinualDataModule:
    return ContinualDataModule(make_source(), SCENARIOS[name], **{"batch_size": 5, **options})


class Arrivals(Callback):
    """Writes down which samples a process really trains on, by their pixels, and by the plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[tuple[int, int, list[int], list[int]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        real = trainer.datamodule.train_batch(batch_idx).real
        pixels = (batch[0][:real].flatten(1)[:, 0] * 255).round().long().tolist()
        planned = trainer.datamodule.train_batch(batch_idx).index[:real].tolist()
        self.rows.append((trainer.current_epoch, batch_idx, pixels, planned))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(self.rows, self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def fit(folder: Path, name: str, devices: int = 1, **options: Any) -> list[Any]:
    processes = {"devices": devices, "strategy": "ddp_fork"} if devices > 1 else {}
    trainer = make_trainer(None, [Arrivals(folder)], limit_val_batches=0, **processes)
    trainer.fit(TinyModule(), datamodule=make_stream(name, **options))
    return [torch.load(folder / f"{devices}-{rank}.pt") for rank in range(devices)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_samples_arrive_in_the_order_of_the_table(tmp_path, name):
    stream = make_stream(name)
    (rows,) = fit(tmp_path, name)
    assert [i for *_, pixels, _ in rows for i in pixels] == stream.table().sample.tolist()
    assert all(pixels == planned for *_, pixels, planned in rows)
    starts = [batch_idx for _, batch_idx, *_ in rows]
    assert starts.count(0) == stream.info.num_tasks  # no batch crosses a boundary


@pytest.mark.parametrize("options", [{"batch_size": 16}, {"num_workers": 2}])
def test_order_does_not_depend_on_batch_size_and_workers(tmp_path, options):
    (rows,) = fit(tmp_path, "si-blurry", **options)
    assert [i for *_, pixels, _ in rows for i in pixels] == make_stream("si-blurry").table().sample.tolist()


def test_two_processes_share_out_the_batches_of_one(tmp_path):
    (alone,) = fit(tmp_path, "si-blurry")
    ranks = fit(tmp_path, "si-blurry", devices=2)
    assert len(alone) == len(ranks[0]) == len(ranks[1])
    for step, (epoch, batch_idx, pixels, _) in enumerate(alone):
        assert [rank[step][:2] for rank in ranks] == [(epoch, batch_idx)] * 2
        assert [i for rank in ranks for i in rank[step][2]] == pixels


@pytest.mark.parametrize("name", ["gcil", "repetition", "power-law"])
def test_samples_may_come_back_in_a_later_task_and_in_a_table(tmp_path, name):
    stream = make_stream(name)
    table = stream.table()
    assert len(table.sample.unique()) < len(table)
    table.to_csv(tmp_path / "stream.csv")
    replayed = ContinualDataModule(make_source(), StreamTable.from_csv(tmp_path / "stream.csv").as_scenario("stream"))
    assert replayed.table() == table
    assert replayed.info.fingerprint == stream.info.fingerprint
    test = stream.layout.evaluation["test"]
    held = set(table.label.tolist())
    assert sorted(torch.cat(test.index).tolist()) == [i for i in range(12) if i % NUM_CLASSES in held]
    assert [len(index) > 0 for index in test.index] == [len(new) > 0 for new in stream.layout.new_classes]


def test_an_online_stream_is_one_pass():
    with pytest.raises(ValueError, match="SiBlurry is an online stream, one ordered pass"):
        make_stream("si-blurry", epochs_per_task=2).setup()
    scenario = Repetition(5, 2, order="shuffled")
    assert ContinualDataModule(make_source(), scenario, epochs_per_task=2).tasks[0].epochs == 2


def test_dropped_classes_are_said_once_the_stream_is_laid_out():
    scenario = SiBlurry(4, keep_all_classes=False)
    stream = ContinualDataModule(make_source(), scenario, seed=2)
    with pytest.warns(UserWarning, match=r"SiBlurry leaves out the classes \[\d, \d\] \(24 samples\)"):
        stream.setup()
    dropped = scenario.report(stream.source.train_labels, NUM_CLASSES, seed=2).dropped_classes
    assert set(stream.task_at(3).seen_classes) == set(range(NUM_CLASSES)) - set(dropped)
    assert sum(map(len, stream.layout.evaluation["test"].index)) == 8
