"""A run that is killed anywhere and resumed is the run that was not: same bits, and nothing happens twice or never."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from tiny_stream import BATCHES, EPOCHS, Spy, TinyModule, make_stream, make_trainer
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules.resume import random_states, set_random_states

pytestmark = pytest.mark.filterwarnings("ignore")


class NoisyModule(TinyModule):
    """Draws from all global generators wherever a resumed run might have the wrong ones; counts on a plateau."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)

    def on_train_start(self) -> None:
        self._draw()

    def on_train_epoch_start(self) -> None:
        self._draw()

    def on_train_epoch_end(self) -> None:
        self._draw()

    def on_validation_epoch_end(self) -> None:
        self._draw()

    def _draw(self) -> None:
        torch.rand(1), random.random(), np.random.rand()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not self.trainer.training:
            return batch
        noise = torch.randn_like(batch[0]) + random.random() + np.random.rand()
        return batch[0] + 0.1 * noise, batch[1]

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss", "strict": False}}


class RememberingSpy(Spy):
    """Goes on with the checkpoint's events, so that a resumed run must end with those of an uninterrupted one."""

    def state_dict(self) -> dict[str, Any]:
        return {"events": [list(event) for event in self.events]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.events = [tuple(event) for event in state["events"]]


class AtValidationEnd(ModelCheckpoint):
    """A class of its own, because one Trainer takes no two checkpoint callbacks with the same settings."""


@dataclass
class Run:
    trainer: Trainer
    module: LightningModule
    spy: RememberingSpy

    def result(self) -> dict[str, Any]:
        loop, plateau = self.trainer.fit_loop, self.trainer.lr_scheduler_configs[0].scheduler
        return {
            "weights": self.module.state_dict(),
            "optimizer": self.trainer.optimizers[0].state_dict(),
            "plateau": (plateau.best, plateau.num_bad_epochs, plateau.last_epoch),
            "counts": (self.trainer.global_step, self.trainer.current_epoch, loop.epoch_loop._batches_that_stepped),
            "epochs": self.trainer.datamodule.schedule.epochs,
        }


def fit(
    seed: int, folder: Path | None = None, ckpt_path: Path | None = None, stopping: Any = None, **options: Any
) -> Run:
    """Run the stream; with ``folder``, save a checkpoint wherever Lightning can."""
    stream_options = {name: options.pop(name) for name in ("num_workers", "early_stopping") if name in options}
    stream_options["epochs_per_task"] = options.pop("epochs", EPOCHS)
    callbacks = [*options.pop("callbacks", ()), *([EarlyStopping(**stopping)] if stopping else [])]
    callbacks += checkpoints(folder) if folder else []
    seed_everything(seed)
    run = Run(make_trainer(folder, [spy := RememberingSpy(), *callbacks], **options), NoisyModule(), spy)
    run.trainer.fit(run.module, datamodule=make_stream(**stream_options), ckpt_path=ckpt_path)
    return run


def checkpoints(folder: Path) -> list[ModelCheckpoint]:
    """After every batch, after every validation, and after every epoch."""
    keep: dict[str, Any] = {"dirpath": folder, "save_top_k": -1}
    return [
        ModelCheckpoint(filename="batch-{epoch}-{step}", every_n_train_steps=1, **keep),
        AtValidationEnd(filename="validation-{epoch}-{step}", every_n_epochs=1, save_on_train_epoch_end=False, **keep),
        ModelCheckpoint(filename="epoch-{epoch}-{step}", every_n_epochs=1, save_on_train_epoch_end=True, **keep),
    ]


def saved(folder: Path) -> list[Path]:
    """All checkpoints in the order in which they were written."""
    return sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)


def assert_same(resumed: Run, whole: Run, path: Path) -> None:
    __tracebackhide__ = True
    assert resumed.spy.events == whole.spy.events, path.name
    assert_close(resumed.result(), whole.result(), rtol=0, atol=0, msg=lambda text: f"{path.name}: {text}")


def check_every_resume(folder: Path, every: int = 1, **options: Any) -> None:
    whole = fit(1, folder, **options)
    *paths, last = saved(folder)
    assert len(paths) > 8
    for path in paths[::every]:
        assert_same(fit(2, ckpt_path=path, **options), whole, path)
    finished = fit(2, ckpt_path=last, **options)  # nothing is left to do
    assert finished.spy.events == whole.spy.events
    assert_close(finished.module.state_dict(), whole.module.state_dict(), rtol=0, atol=0)


def test_from_every_checkpoint_of_a_run(tmp_path):
    check_every_resume(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 0.5},
        {"limit_train_batches": 2},
        {"accumulate_grad_batches": 3},
        {"max_steps": 14},
        {"limit_val_batches": 0, "limit_train_batches": 2},
        {"num_sanity_val_steps": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_from_checkpoints_under_other_trainers(tmp_path, options):
    check_every_resume(tmp_path, every=2, **options)


@pytest.mark.parametrize("after", ["fit", "epoch"])
@pytest.mark.parametrize("steps", [1, 3, 4, 7, 9])
def test_a_run_that_max_steps_ended_within_an_epoch_goes_on_there(steps, after, tmp_path):
    """Lightning counts that epoch as completed, and would go on with the next one."""

    def run(ckpt_path=None, callbacks=(), **options):
        seed_everything(1)
        trainer, module = make_trainer(tmp_path, callbacks, **options), TinyModule(dropout=0.5)
        trainer.fit(module, datamodule=make_stream(), ckpt_path=ckpt_path)
        return trainer, module

    saving = ModelCheckpoint(tmp_path, "saved", save_on_train_epoch_end=True, save_top_k=-1, every_n_epochs=1)
    cut, _ = run(callbacks=[saving] if after == "epoch" else [], max_steps=steps)
    if after == "fit":
        cut.save_checkpoint(tmp_path / "saved.ckpt")
    path = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    (whole, expected), (resumed, found) = run(), run(path)
    assert (resumed.global_step, resumed.current_epoch) == (whole.global_step, whole.current_epoch)
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_with_another_number_of_workers(tmp_path):
    whole = fit(1, tmp_path)
    for path in saved(tmp_path)[1:-1:6]:
        assert_same(fit(2, ckpt_path=path, num_workers=2), whole, path)


@pytest.mark.parametrize("at_train_epoch_end", [True, False])
def test_when_tasks_stop_early(tmp_path, at_train_epoch_end):
    # The loss must improve by far too much, so every task of four epochs ends after its third.
    stopping = {
        "monitor": "val_loss",
        "patience": 1,
        "min_delta": 1e6,
        "check_on_train_epoch_end": at_train_epoch_end,
    }
    options = {"early_stopping": "task", "epochs": 4, "stopping": stopping}
    check_every_resume(tmp_path, every=5, **options)
    assert fit(1, **options).trainer.datamodule.schedule.epochs == (3, 3, 3)


def test_a_resumed_run_can_be_resumed(tmp_path):
    whole = fit(1, tmp_path / "first")
    last_of_task = next(path for path in saved(tmp_path / "first") if path.name.startswith("batch-epoch=1-step=4"))
    again = fit(2, tmp_path / "second", ckpt_path=last_of_task)
    assert_same(again, whole, last_of_task)
    *paths, _ = saved(tmp_path / "second")
    assert paths[0].name == "validation-epoch=1-step=4.ckpt"
    for path in paths[::2]:
        assert_same(fit(3, ckpt_path=path), whole, path)


def test_the_last_batch_of_a_task_is_followed_by_its_evaluation(tmp_path):
    """The trap itself, spelled out: Lightning alone leaves out the validation of epoch 1 and the start of task 1."""
    fit(1, tmp_path)
    path = tmp_path / "batch-epoch=1-step=4.ckpt"
    before = [tuple(event) for event in torch.load(path, weights_only=True)["callbacks"]["RememberingSpy"]["events"]]
    assert before[-2:] == [("task_end", 1, 0), ("batch_end", 1, 1)]
    events = fit(2, ckpt_path=path).spy.events[len(before) :]
    assert events[:4] == [
        ("validation", 1, (0, 6)),
        ("epoch_end", 1, None),
        ("task_start", 2, 1),
        ("epoch_start", 2, BATCHES[1]),
    ]


class ListLogger(DummyLogger):
    """Keeps what is said about tasks, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if "stream/task" in metrics:
            self.rows.append((step, metrics))


def test_every_task_has_its_row_in_the_logs(tmp_path):
    """Also the one whose end was saved before it was evaluated."""
    whole = ListLogger()
    evaluated = {"callbacks": [ContinualEvaluation(report=False, print_table=False)]}
    fit(1, tmp_path, logger=whole, **evaluated)
    for path in (tmp_path / "batch-epoch=1-step=4.ckpt", tmp_path / "batch-epoch=2-step=6.ckpt"):
        resumed = ListLogger()
        fit(2, ckpt_path=path, logger=resumed, **evaluated)
        assert resumed.rows == whole.rows[-len(resumed.rows) :]
        assert [m["stream/task"] for _, m in resumed.rows if "after_task/class_il/average_accuracy" in m] == (
            [0.0, 1.0, 2.0] if "step=4" in path.name else [1.0, 2.0]
        )


def test_random_states_go_round():
    device = torch.device("cpu")
    np.random.standard_normal()  # leaves a second number for the next call
    random.gauss(0, 1)
    states = random_states(device)
    draw = lambda: (torch.rand(3), np.random.standard_normal(3).tolist(), random.gauss(0, 1), random.random())  # noqa: E731
    first = draw()
    set_random_states(states, device)
    assert_close(draw(), first, rtol=0, atol=0)
