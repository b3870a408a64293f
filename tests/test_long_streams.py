"""Nothing grows with the number of tasks: memory, objects, hooks, optimisers, loaders, worker processes."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.runs import in_forked_processes
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_cl.callbacks import ContinualCallback, ContinualEvaluation, FineTuning
from lightning_cl.callbacks.evaluation import metric_evaluation
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.loader import StreamLoader
from lightning_cl.metrics import summarise

pytestmark = pytest.mark.filterwarnings("ignore")


class Linear(LightningModule):
    """As cheap as a classifier can be."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]


def make_stream(num_tasks: int, **options: Any) -> ContinualDataModule:
    """One class, three training images and one test image a task."""
    rng = np.random.default_rng(0)
    labels = [np.repeat(np.arange(num_tasks), count) for count in (3, 1)]
    splits = [(rng.integers(0, 256, (len(y), 4, 4), dtype=np.uint8), y) for y in labels]
    scenario = ClassIncremental(num_tasks, class_order="natural")
    sizes = {"batch_size": 2, "eval_batch_size": num_tasks // 10}  # full batches whenever there is a census
    return ContinualDataModule(ArraySource(*splits), scenario, **{**sizes, **options})


def quiet_trainer(folder: Path, callbacks: Sequence[Callback], **options: Any) -> Trainer:
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return Trainer(
        accelerator="cpu",
        enable_checkpointing=saves,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{**silent, **options},
    )


def resident_memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hooks_on(trainer: Trainer, pl_module: LightningModule) -> int:
    """Everything that anybody registered on the module, its parts and the optimisers."""
    objects = [*pl_module.modules(), *trainer.optimizers]
    names = {name for thing in objects for name in vars(thing) if name.endswith("_hooks")}
    return sum(len(getattr(thing, name, None) or ()) for thing in objects for name in names)


class Census(ContinualCallback):
    """Counts what is alive at the start of some tasks."""

    def __init__(self, tasks: Sequence[int]) -> None:
        self.tasks, self.counts = tasks, []

    def on_task_start(self, trainer: Trainer, pl_module: LightningModule, task: Any) -> None:
        if task.index in self.tasks:
            gc.collect()
            alive = gc.get_objects()
            tensors = [thing for thing in alive if issubclass(type(thing), Tensor)]
            self.counts.append(
                {
                    "memory": resident_memory(),
                    "objects": len(alive),
                    "tensors": len(tensors),
                    "elements": sum(tensor.numel() for tensor in tensors),
                    "optimizers": sum(issubclass(type(thing), torch.optim.Optimizer) for thing in alive),
                    "loaders": sum(issubclass(type(thing), StreamLoader) for thing in alive),
                    "hooks": hooks_on(trainer, pl_module),
                    "callbacks": len(trainer.callbacks),
                    "processes": len(multiprocessing.active_children()),
                }
            )


def census(folder: Path, num_tasks: int, callbacks: Sequence[Callback], **options: Any) -> list[dict[str, int]]:
    """Counts in a child process after a tenth, a half, and nine tenths of the tasks."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")

    def run() -> None:
        seed_everything(0, verbose=False)
        gc.collect()
        gc.freeze()  # what other tests left behind is not counted
        counting = Census([num_tasks // 10, num_tasks // 2, num_tasks - num_tasks // 10])
        trainer = quiet_trainer(folder, [*callbacks, counting], **options)
        trainer.fit(Linear(num_tasks), datamodule=make_stream(num_tasks))
        (folder / "counts.json").write_text(json.dumps(counting.counts))

    assert in_forked_processes(run, patience=1800) == [0]
    return json.loads((folder / "counts.json").read_text())


def assert_flat(counts: list[dict[str, int]], num_tasks: int, numbers_a_task: int = 0, matrices: int = 0) -> None:
    """After the first tasks nothing grows, but for so many numbers (in the same tensors) a task.

    A matrix of int64 counts, tasks by tasks, is allocated in the beginning but in memory only where it was written to.
    """
    early, middle, late = counts
    assert late["memory"] < 1.02 * early["memory"] + 8 * num_tasks**2 * matrices, counts
    assert late.pop("elements") - early.pop("elements") <= numbers_a_task * num_tasks, counts
    for name in early.keys() - {"memory"}:
        assert early[name] >= middle[name] >= late[name], f"{name}: {[count[name] for count in counts]}"


#: ContinualEvaluation fills matrices that it allocates in the beginning. Which samples the validation loader serves is
#: a list that grows with the tasks; it is there twice, for the loader and for who asks what a batch holds.
CALLBACKS = {
    "training": ([lambda: FineTuning(reset_optimizer=True)], {"limit_val_batches": 0}, (0, 0)),
    "evaluation": ([lambda: ContinualEvaluation(report=False, print_table=False), FineTuning], {}, (2, 3)),
}


@pytest.mark.parametrize(
    ("num_tasks", "kind"),
    [(120, "training"), (120, "evaluation"), pytest.param(1000, "evaluation", marks=pytest.mark.slow)],
)
def test_nothing_grows(num_tasks, kind, tmp_path):
    callbacks, options, growing = CALLBACKS[kind]
    assert_flat(census(tmp_path, num_tasks, [make() for make in callbacks], **options), num_tasks, *growing)


@pytest.mark.slow
def test_nothing_grows_with_checkpoints(tmp_path):
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=1, save_last=True)
    assert_flat(census(tmp_path, 200, [FineTuning(reset_optimizer=True), saving], limit_val_batches=0), 200)


# ---------------------------------------------------------------------- worker processes


class Workers(ContinualCallback):
    """Worker processes at the end of every task, before its loaders have let go of them."""

    def __init__(self) -> None:
        self.seen: list[set[int]] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append({child.pid for child in multiprocessing.active_children()})


@pytest.mark.parametrize("persistent", [True, False])
def test_worker_processes(persistent, tmp_path):
    """Two for training and two for validation: the same ones over all tasks, or new ones in place of the old."""

    def run() -> None:
        workers = Workers()
        stream = make_stream(5, eval_batch_size=2, num_workers=2, persistent_workers=persistent)
        quiet_trainer(tmp_path, [FineTuning(), workers], num_sanity_val_steps=0).fit(Linear(5), datamodule=stream)
        assert len(workers.seen) == 5
        assert {len(pids) for pids in workers.seen} == {4}
        assert len(set.union(*workers.seen)) == (4 if persistent else 20)

    assert in_forked_processes(run) == [0]


# ---------------------------------------------------------------------- what is logged


@pytest.mark.parametrize(("limit", "single"), [(6, True), (5, False)])
def test_accuracies_of_single_tasks_are_logged_in_short_streams(limit, single, monkeypatch, tmp_path):
    monkeypatch.setattr(metric_evaluation, "MOST_TASKS_LOGGED", limit)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    trainer = quiet_trainer(tmp_path, [FineTuning(), evaluation])
    trainer.fit(Linear(6), datamodule=make_stream(6, eval_batch_size=2))
    logged = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("class_il/task_")}
    row = evaluation.matrix()[-1].tolist()
    assert {name: float(value) for name, value in logged.items()} == (
        {f"class_il/task_{task}": pytest.approx(value) for task, value in enumerate(row)} if single else {}
    )
    expected = summarise(evaluation.matrix(), evaluation.matrix("task_il"))
    for name in ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer"):
        for space in ("class_il", "task_il"):
            assert float(trainer.callback_metrics[f"{space}/{name}"]) == pytest.approx(expected[f"{space}/{name}"])
