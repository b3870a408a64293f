"""A loader, a batch, the task or the number of steps may be asked for at any time: the run stays the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from test_resume import NoisyModule, RememberingSpy, Run, assert_same
from tiny_stream import make_stream, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")
#: Epochs of 2, 3 and 4 batches, two of the first and the last task: in mid-epoch, at a task's end, and late.
STEPS = (1, 3, 4, 6, 7, 13)


class AsksForSteps(NoisyModule):
    def configure_optimizers(self) -> Any:
        self.asked = self.trainer.estimated_stepping_batches
        return super().configure_optimizers()


class AsksLightning(NoisyModule):
    """As Lightning's own count of the steps does."""

    def configure_optimizers(self) -> Any:
        self.trainer.fit_loop.setup_data()
        self.trainer.fit_loop.epoch_loop.val_loop.setup_data()
        return super().configure_optimizers()


class AsksForLoaders(NoisyModule):
    def on_fit_start(self) -> None:
        stream = self.trainer.datamodule
        self.loader, self.asked = stream.train_dataloader(), stream.task_index
        next(iter(self.loader))
        stream.val_dataloader()


class Looks(NoisyModule):
    """At the first batch, as for the shape of an image or its mean."""

    def on_train_start(self) -> None:
        super().on_train_start()
        next(iter(self.trainer.train_dataloader))
        torch.rand(1)  # behind the look: not what the run draws next


class LooksAllTheTime(NoisyModule):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        next(iter(self.trainer.train_dataloader))

    def on_train_batch_end(self, *_: Any) -> None:
        next(iter(self.trainer.train_dataloader))


class KeepsAnIterator(NoisyModule):
    def on_train_start(self) -> None:
        super().on_train_start()
        self.iterator = iter(self.trainer.train_dataloader)
        next(self.iterator)

    def on_train_batch_end(self, *_: Any) -> None:
        next(self.iterator, None)


def fit(
    kind: type[NoisyModule], seed: int, folder: Path | None = None, ckpt_path: Path | None = None, **options: Any
) -> Run:
    seed_everything(seed, verbose=False)
    saving = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if folder else []
    run = Run(make_trainer(folder, [spy := RememberingSpy(), *saving]), kind(), spy)
    run.trainer.fit(run.module, datamodule=make_stream(**options), ckpt_path=ckpt_path)
    return run


@pytest.mark.parametrize(
    "kind",
    [AsksForSteps, AsksLightning, AsksForLoaders, Looks, LooksAllTheTime, KeepsAnIterator],
    ids=lambda k: k.__name__,
)
def test_a_resumed_run_is_the_run_that_was_not_stopped(kind, tmp_path):
    whole = fit(kind, 1, tmp_path)
    for step in STEPS:
        path = tmp_path / f"step={step}.ckpt"
        assert_same(fit(kind, 2, ckpt_path=path), whole, path)


@pytest.mark.parametrize("kind", [AsksForSteps, Looks, LooksAllTheTime, KeepsAnIterator], ids=lambda k: k.__name__)
def test_asking_changes_nothing(kind):
    plain, asking = fit(NoisyModule, 1), fit(kind, 1)
    assert [e for e in asking.spy.events if e[0] == "batch"] == [e for e in plain.spy.events if e[0] == "batch"]
    if kind is AsksForSteps:
        assert_same(asking, plain, Path("whole"))


@pytest.mark.parametrize("kind", [LooksAllTheTime, KeepsAnIterator], ids=lambda k: k.__name__)
def test_a_look_does_not_disturb_workers_that_stay(kind):
    assert_same(fit(kind, 1, num_workers=1, persistent_workers=True), fit(kind, 1), Path("whole"))


def test_the_task_is_known_as_soon_as_the_checkpoint_is(tmp_path):
    fit(AsksForLoaders, 1, tmp_path)
    asked = [fit(AsksForLoaders, 2, ckpt_path=tmp_path / f"step={step}.ckpt").module.asked for step in STEPS]
    assert asked == [0, 0, 0, 1, 1, 2]
