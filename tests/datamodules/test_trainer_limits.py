"""A Trainer that trains or evaluates a part only: every task has its share, and what is nothing is said."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_stream import NUM_TASKS, Spy, TinyModule, make_stream, make_trainer

from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay
from lightning_cl.datamodules.sampling import leading_share

pytestmark = pytest.mark.filterwarnings("ignore")


class Batches(Callback):
    """Which samples are trained on, by epoch."""

    def __init__(self) -> None:
        self.trained: dict[int, list[list[int]]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        rows = trainer.datamodule.train_rows(batch_idx).tolist()
        self.trained.setdefault(trainer.current_epoch, []).append(rows)


# ---------------------------------------------------------------------- overfit_batches


@pytest.mark.parametrize("methods", [[], [ExperienceReplay(memory_size=6, batch_size=2)]], ids=["plain", "replay"])
@pytest.mark.parametrize("count", [1, 2, 0.5])
def test_overfitting_repeats_the_first_batches_of_each_task(count, methods):
    trainer = make_trainer(callbacks=[*methods, batches := Batches(), spy := Spy()], overfit_batches=count)
    trainer.fit(TinyModule(), datamodule=(stream := make_stream(epochs_per_task=2)))
    lengths = [int(n * count) if isinstance(count, float) else min(n, count) for n in (2, 3, 4)]
    assert [len(batches.trained[epoch]) for epoch in range(6)] == [n for n in lengths for _ in range(2)]
    for task in range(NUM_TASKS):
        first, second = batches.trained[2 * task], batches.trained[2 * task + 1]
        assert first == second  # every epoch the same, which Lightning promises
        assert {row for rows in first for row in rows} <= set(stream.layout.train_index[task].tolist())
    assert len(spy.of("task_start")) == NUM_TASKS
    assert trainer.overfit_batches == count


# ---------------------------------------------------------------------- limit_val_batches


@pytest.mark.parametrize(
    ("sizes", "rows", "shares"),
    [
        ((10, 10), 10, (5, 5)),
        ((10, 10, 10), 4, (1, 2, 1)),
        ((100, 2), 10, (9, 1)),  # a small task has one, and not a tenth of a sample
        ((1, 1, 1), 3, (1, 1, 1)),
        ((5, 0, 5), 4, (2, 0, 2)),
        ((4, 4, 4, 4), 2, (1, 0, 1, 0)),
        ((3, 4), 99, (3, 4)),
    ],
)
def test_every_task_has_its_share(sizes, rows, shares):
    ends = torch.tensor(sizes).cumsum(0).tolist()
    order = leading_share(sizes, rows)
    assert sorted(order.tolist()) == list(range(ends[-1]))
    led = order[:rows]
    starts = [0, *ends[:-1]]
    assert tuple(int(((led >= a) & (led < b)).sum()) for a, b in zip(starts, ends, strict=True)) == shares
    assert [i for i in led.tolist()] == sorted(led.tolist())  # task by task, each from its start


def test_shares_are_proportional_whatever_the_sizes():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        sizes = torch.randint(1, 40, (int(torch.randint(1, 12, (), generator=generator)),), generator=generator)
        total = int(sizes.sum())
        rows = int(torch.randint(len(sizes), total + 1, (), generator=generator))
        led = leading_share(sizes.tolist(), rows)[:rows]
        counts = torch.bincount(torch.bucketize(led, sizes.cumsum(0), right=True), minlength=len(sizes))
        assert int(counts.sum()) == rows
        assert bool((counts >= 1).all() and (counts <= sizes).all())
        larger = sizes[:, None] >= sizes[None, :]
        assert bool((counts[:, None] >= counts[None, :] - 1)[larger].all())  # up to rounding


@pytest.mark.parametrize("limit", [2, 0.7, 1])
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_a_limited_evaluation_draws_from_every_task(limit, stage):
    evaluation = ContinualEvaluation(report=False, print_table=False)
    options = {f"limit_{'test' if stage == 'test' else 'val'}_batches": limit}
    trainer = make_trainer(callbacks=[evaluation], **options)
    stream = make_stream(epochs_per_task=1, batch_size=4, eval_batch_size=5)
    trainer.fit(module := TinyModule(), datamodule=stream)
    if stage == "fit":
        tested = evaluation.total
        assert torch.equal(tested > 0, torch.ones(NUM_TASKS, NUM_TASKS, dtype=torch.bool).tril())
        rows = min(18, 5 * (limit if isinstance(limit, int) else int(4 * limit)))
        assert int(tested[-1].sum()) == rows
        return
    logged = getattr(trainer, stage)(module, datamodule=stream, verbose=False)[0]
    counts = evaluation._counts.finish(trainer)[0, 1] if stage == "test" else evaluation.total[-1]
    assert bool((counts > 0).all()), logged


def test_a_share_too_small_for_the_tasks_is_said():
    stream = make_stream(epochs_per_task=1, eval_batch_size=2)
    with pytest.warns(UserWarning, match=r"`limit_val_batches=1` evaluates 2 samples of 3 tasks"):
        make_trainer(limit_val_batches=1).fit(TinyModule(), datamodule=stream)


# ---------------------------------------------------------------------- the moments of validation


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 2},  # of 2, 3 and 4 batches
        {"val_check_interval": 0.67},
        {"val_check_interval": 2, "check_val_every_n_epoch": None},
        {"val_check_interval": "00:00:01:00"},
    ],
    ids=str,
)
def test_validation_that_misses_a_boundary_is_refused(options):
    evaluation = ContinualEvaluation(report=False, print_table=False)
    with pytest.raises(ValueError, match=r"`val_check_interval=.*does not validate the last batch of .*set it to 1\.0"):
        make_trainer(callbacks=[evaluation], **options).fit(TinyModule(), datamodule=make_stream())


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 1},
        {"val_check_interval": 2, "limit_train_batches": 2},
        {"val_check_interval": 0.34},
        {"val_check_interval": 1, "check_val_every_n_epoch": None},
    ],
    ids=str,
)
def test_validation_at_more_moments_is_taken(options):
    evaluation = ContinualEvaluation(report=False, print_table=False)
    make_trainer(callbacks=[evaluation, spy := Spy()], **options).fit(TinyModule(), datamodule=make_stream())
    events = [event[0] for event in spy.of("task_end", "validation")]
    assert all(after == "validation" for event, after in pairwise(events) if event == "task_end")
    assert events[-1] == "validation"


# ---------------------------------------------------------------------- fits that train nothing, or the same again


def test_a_second_fit_of_a_finished_trainer_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, [evaluation := ContinualEvaluation(print_table=False)])
    trainer.fit(module := TinyModule(), datamodule=(stream := make_stream(epochs_per_task=1)))
    written = (path := next(tmp_path.rglob("continual_report.json"))).read_bytes()
    with pytest.raises(ValueError, match=r"this Trainer has trained all 3 epochs.*nothing is left.*new Trainer"):
        trainer.fit(module, datamodule=stream)
    with pytest.raises(ValueError, match="nothing is left"):
        trainer.fit(TinyModule(), datamodule=make_stream(epochs_per_task=1))
    assert path.read_bytes() == written
    assert evaluation is not None


def test_a_second_fit_after_the_last_step_is_refused():
    trainer = make_trainer(max_steps=3)
    trainer.fit(module := TinyModule(), datamodule=(stream := make_stream()))
    with pytest.raises(ValueError, match=r"this Trainer has made all 3 steps.*nothing is left"):
        trainer.fit(module, datamodule=stream)


def test_a_trainer_goes_on_or_back(tmp_path):
    trainer = make_trainer(max_epochs=1)
    stream = make_stream(epochs_per_task=1)
    trainer.fit(module := TinyModule(), datamodule=stream)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, datamodule=stream)
    assert trainer.current_epoch == 3
    trainer.fit(module, datamodule=stream, ckpt_path=tmp_path / "first.ckpt")  # back to the first task's end
    assert trainer.global_step == 2 + 3 + 4


@pytest.mark.parametrize("limit", [{"max_epochs": 1}, {"max_steps": 2}], ids=str)
@pytest.mark.parametrize("anew", [False, True], ids=["one stream", "new streams"])
def test_a_new_trainer_for_each_task_is_one_sentence(limit, anew):
    module, stream = TinyModule(), make_stream(epochs_per_task=1)
    make_trainer(**limit).fit(module, datamodule=stream)
    stream = make_stream(epochs_per_task=1) if anew else stream
    with pytest.raises(ValueError, match=r"trained on task 0 of 3 by another Trainer.*one `trainer\.fit`.*ckpt_path"):
        make_trainer(**limit).fit(module, datamodule=stream)


def test_what_is_no_loop_over_tasks_is_taken(tmp_path):
    module, stream = TinyModule(), make_stream(epochs_per_task=1)
    make_trainer(fast_dev_run=True).fit(module, datamodule=stream)
    make_trainer(fast_dev_run=True).fit(module, datamodule=stream)
    first = make_trainer(max_epochs=1)
    first.fit(module, datamodule=stream)
    first.save_checkpoint(tmp_path / "first.ckpt")
    make_trainer(max_epochs=1).fit(TinyModule(), datamodule=stream)  # another module
    make_trainer(max_epochs=2).fit(module, datamodule=stream, ckpt_path=tmp_path / "first.ckpt")
    make_trainer().fit(module, datamodule=stream)  # a trial first, then the whole stream
    make_trainer(max_epochs=1).fit(module, datamodule=stream)


def test_a_run_cut_short_by_max_steps_is_said(tmp_path):
    evaluation = ContinualEvaluation(print_table=False)
    trainer = make_trainer(tmp_path, [evaluation], max_steps=4)
    with pytest.warns(UserWarning, match=r"`max_steps=4` ends the run in task 2 of 3; the whole stream has 9 steps"):
        trainer.fit(module := TinyModule(), datamodule=make_stream(epochs_per_task=1))
    notes = evaluation.build_report(trainer, module).notes
    assert "the run ended in task 2 of 3, so its averages are over fewer tasks" in notes
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole = make_trainer(tmp_path, [again := ContinualEvaluation(report=False, print_table=False)])
        whole.fit(module := TinyModule(), datamodule=make_stream(epochs_per_task=1))
    assert not [warning for warning in said if "max_steps" in str(warning.message)]
    assert not [note for note in again.build_report(whole, module).notes if "ended in task" in note]


# ---------------------------------------------------------------------- sync_batchnorm


def test_batch_norm_that_is_synchronised_on_the_cpu_is_refused(monkeypatch):
    module = TinyModule()
    module.net.append(torch.nn.BatchNorm1d(6))
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # put back what one process of a group leaves there
        monkeypatch.delenv(name)
    try:
        with pytest.raises(ValueError, match=r"made one of `net.5`, .* leave `sync_batchnorm` out"):
            make_trainer(strategy="ddp", devices=1, sync_batchnorm=True).fit(module, datamodule=make_stream())
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
