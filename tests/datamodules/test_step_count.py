"""`trainer.estimated_stepping_batches` is the number of optimiser steps that a fit makes: counted against the fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from tiny_stream import TinyModule, make_stream, make_trainer
from torch.optim import lr_scheduler

from lightning_cl.callbacks import FineTuning
from lightning_cl.datamodules import ClassIncremental, SiBlurry

pytestmark = pytest.mark.filterwarnings("ignore")


class Scheduled(TinyModule):
    """As a user writes it: a schedule over all steps that ends where it should."""

    def configure_optimizers(self) -> Any:
        self.totals = [*getattr(self, "totals", ()), self.trainer.estimated_stepping_batches]
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.totals[-1])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(callbacks: Any = (), trainer: dict[str, Any] | None = None, **stream: Any) -> tuple[Scheduled, Trainer]:
    seed_everything(0, verbose=False)
    module, runner = Scheduled(), make_trainer(callbacks=callbacks, **(trainer or {}))
    runner.fit(module, datamodule=make_stream(**stream))
    return module, runner


UNEVEN = {"scenario": ClassIncremental(classes_per_task=[4, 1, 1], class_order=range(6))}
ONLINE = {"scenario": SiBlurry(3, seed=4), "epochs_per_task": 1, "updates_per_batch": 3}


@pytest.mark.parametrize(
    ("trainer", "stream"),
    [
        ({}, {}),
        ({}, UNEVEN),
        ({}, {**UNEVEN, "drop_last": True, "batch_size": 3}),
        ({}, {"batch_size": (2, 7, 33)}),
        ({}, ONLINE),
        ({"accumulate_grad_batches": 3}, {}),
        ({"accumulate_grad_batches": 2}, ONLINE),
        ({"max_steps": 8}, UNEVEN),
        ({"max_epochs": 3}, UNEVEN),
        ({"limit_train_batches": 2}, UNEVEN),
        ({"limit_train_batches": 0.5}, UNEVEN),
        ({"fast_dev_run": 1}, {}),
        ({"overfit_batches": 1}, UNEVEN),
    ],
    ids=lambda options: re.sub(r" at 0x\w+", "", str(options)),  # the same in every process
)
def test_the_steps_of_the_whole_stream(trainer, stream):
    module, runner = fit(trainer=trainer, **stream)
    assert module.totals == [runner.global_step]
    assert runner.global_step > 0


def test_accumulation_that_changes():
    module, runner = fit([GradientAccumulationScheduler({0: 1, 1: 2, 3: 3})])
    assert module.totals == [runner.global_step]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_samples_per_process_make_fewer_steps(world_size, monkeypatch):
    monkeypatch.setattr(Trainer, "world_size", world_size)
    stream = make_stream(per_device=True)
    trainer = make_trainer()
    stream.trainer, trainer.datamodule = trainer, stream
    stream.setup("fit")
    expected = sum(epochs * -(-size // (4 * world_size)) for epochs, size in zip((2, 1, 2), (7, 11, 15), strict=True))
    assert stream.count_steps() == expected


def test_a_schedule_that_begins_anew_has_the_steps_of_its_task():
    module, runner = fit([FineTuning(reset_optimizer=True)])
    assert module.totals == [2 * 2, 3, 2 * 4]
    assert sum(module.totals) == runner.global_step
    schedule = runner.lr_scheduler_configs[0].scheduler
    assert (schedule.last_epoch, schedule.total_steps) == (8, 8)


def test_a_resumed_run_counts_the_steps_of_its_task(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    fit([FineTuning(reset_optimizer=True), saving])
    for step, totals in ((3, [4, 3, 8]), (5, [3, 8]), (7, [3, 8]), (9, [8])):
        module, runner = Scheduled(), make_trainer(callbacks=[FineTuning(reset_optimizer=True)])
        runner.fit(module, datamodule=make_stream(), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert module.totals == totals, step


def test_the_plan_counts_and_not_what_stopped_early():
    """Else a resumed run would follow another schedule than the one that was not stopped."""
    stream = make_stream(early_stopping="task")
    trainer = make_trainer()
    trainer.fit(module := Scheduled(), datamodule=stream)
    stream.shorten(0, 1)
    assert stream.count_steps() == module.totals[0] == 15


class OwnTrainer(Trainer):
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_a_trainer_stays_what_it_was(fails):
    class Looks(TinyModule):
        def on_train_start(self) -> None:
            assert isinstance(self.trainer, OwnTrainer)
            assert type(self.trainer).__name__ == "OwnTrainer"
            if fails:
                raise RuntimeError("on purpose")

    trainer = OwnTrainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu", overfit_batches=1
    )
    try:
        trainer.fit(Looks(), datamodule=make_stream(epochs_per_task=1))
    except RuntimeError:
        assert fails
    assert type(trainer) is OwnTrainer
    assert trainer.overfit_batches == 1
