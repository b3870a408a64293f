"""What a module's own hooks change at the end of a batch or a validation is in the checkpoints of that moment."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_stream import TinyModule, make_stream, make_trainer
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore")
#: Batches of an epoch: 2 in task 0, 3 in task 1, 4 in task 2; two epochs of task 0 and 2.
EVERY_BATCH, EVERY_THIRD = 15, 7  # optimiser steps


class Averaged(TinyModule):
    """An average of its weights kept as people keep it, and counts of its hooks."""

    def __init__(self) -> None:
        super().__init__(dropout=0.3)
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        for name in ("batches", "epochs", "validations"):
            self.register_buffer(name, torch.zeros(()))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for own, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
            own.lerp_(new.detach(), 0.3)
        self.batches += 1
        self.log("batches", self.batches)

    def on_train_epoch_end(self) -> None:
        self.epochs += 1

    def on_validation_end(self) -> None:
        self.validations += 1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=self.lr, momentum=0.9)


class PowerCut(Callback):
    """At the first batch after so many optimiser steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise ConnectionAbortedError


def fit(seed: int, callbacks: Any = (), ckpt_path: Path | None = None, **options: Any) -> Averaged:
    seed_everything(seed, verbose=False)
    module = Averaged()
    make_trainer(callbacks=callbacks, **options).fit(module, datamodule=make_stream(), ckpt_path=ckpt_path)
    return module


@pytest.fixture(scope="module")
def whole() -> dict[int, dict[str, Any]]:
    return {count: fit(1, accumulate_grad_batches=count).state_dict() for count in (1, 3)}


@pytest.mark.parametrize(("accumulated", "steps"), [(1, EVERY_BATCH), (3, EVERY_THIRD)])
def test_from_every_step_of_our_checkpoints(accumulated, steps, whole, tmp_path):
    for step in range(1, steps, 2):
        saving = ContinualCheckpoint(tmp_path / str(step), every_n_steps=1, keep_tasks=False)
        saving.speaks = False
        with pytest.raises(ConnectionAbortedError):
            fit(1, [PowerCut(step), saving], accumulate_grad_batches=accumulated)
        resumed = fit(2, ckpt_path=tmp_path / str(step) / "last.ckpt", accumulate_grad_batches=accumulated)
        assert_close(resumed.state_dict(), whole[accumulated], rtol=0, atol=0, msg=lambda m, step=step: f"{step}: {m}")


@pytest.mark.parametrize("task", [0, 1])
def test_from_a_task_s_end_with_a_sanity_check(task, tmp_path):
    """Which belongs to the beginning of the run, and not to that of a part of it."""
    whole = fit(1, [ContinualCheckpoint(tmp_path)], num_sanity_val_steps=2).state_dict()
    resumed = fit(2, ckpt_path=tmp_path / f"task={task}.ckpt", num_sanity_val_steps=2)
    assert_close(resumed.state_dict(), whole, rtol=0, atol=0)
    assert resumed.trainer.num_sanity_val_steps == 2


class AtValidationEnd(ModelCheckpoint):
    """A class of its own, because one Trainer takes no two checkpoint callbacks with the same settings."""


@pytest.mark.parametrize("accumulated", [1, 3])
def test_from_every_checkpoint_of_lightnings(accumulated, whole, tmp_path):
    keep: dict[str, Any] = {"dirpath": tmp_path, "save_top_k": -1}
    saving = [
        ModelCheckpoint(filename="batch-{step}", every_n_train_steps=1, **keep),
        AtValidationEnd(filename="validation-{step}", every_n_epochs=1, save_on_train_epoch_end=False, **keep),
        ModelCheckpoint(filename="epoch-{step}", every_n_epochs=1, save_on_train_epoch_end=True, **keep),
    ]
    ended = fit(1, saving, accumulate_grad_batches=accumulated)
    assert_close(ended.state_dict(), whole[accumulated], rtol=0, atol=0)  # saving changes nothing
    paths = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(paths) == {1: EVERY_BATCH, 3: EVERY_THIRD}[accumulated] + 5 + 5
    for path in paths[: -3 : 2 if accumulated == 1 else 1]:
        resumed = fit(2, ckpt_path=path, accumulate_grad_batches=accumulated)
        assert_close(resumed.state_dict(), whole[accumulated], rtol=0, atol=0, msg=lambda m, p=path: f"{p.name}: {m}")


class Order(TinyModule):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    def on_train_batch_end(self, *_: Any) -> None:
        self.said.append("module")

    def on_validation_end(self) -> None:
        self.said.append("module")


class Says(Callback):
    def __init__(self, said: list[str], name: str) -> None:
        self.said, self.name = said, name

    def on_train_batch_end(self, *_: Any) -> None:
        self.said.append(self.name)

    def on_validation_end(self, *_: Any) -> None:
        self.said.append(self.name)


class Saves(ModelCheckpoint):
    said: list[str]

    def on_train_batch_end(self, *_: Any) -> None:
        self.said.append("checkpoint")

    def on_validation_end(self, *_: Any) -> None:
        self.said.append("checkpoint")


def test_a_hook_runs_once_behind_the_callbacks_and_before_those_that_save(tmp_path):
    said: list[str] = []
    saving = Saves(tmp_path)
    saving.said = said
    trainer = make_trainer(callbacks=[saving, Says(said, "first"), Says(said, "second")])
    trainer.fit(module := Order(said), datamodule=make_stream(epochs_per_task=1))
    assert said == ["first", "second", "module", "checkpoint"] * (2 + 3 + 4 + 3)
    said.clear()
    trainer.validate(module, datamodule=make_stream(), verbose=False)
    assert said == ["first", "second", "checkpoint", "module"]  # as Lightning does it, where nothing is resumed
    assert "on_train_batch_end" not in vars(module)


def test_a_module_can_be_copied_and_pickled_during_the_run(tmp_path):
    class Copies(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if trainer.global_step != 2:
                return
            pl_module.trainer = None  # as everyone does who pickles a module
            for twin in (copy.deepcopy(pl_module), pickle.loads(pickle.dumps(pl_module))):
                twin.log = lambda *_: None
                twin.on_train_batch_end(None, None, 0)
                assert (int(twin.batches), int(pl_module.batches)) == (2, 1)
            pl_module.trainer = trainer

    module = fit(1, [Copies(), ContinualCheckpoint(tmp_path, keep_tasks=False)])
    assert int(module.batches) == EVERY_BATCH
