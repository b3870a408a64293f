"""The online mode: one ordered pass, several updates a batch, classes exposed as they arrive."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.runs import in_forked_processes
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_stream import NUM_CLASSES, SIZES, TinyModule, make_stream, make_trainer
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_cl.callbacks import ContinualEvaluation, FineTuning
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.exposure import Joined, arrived, exposed, joint_weight
from lightning_cl.datamodules.sampling import TrainPlan
from lightning_cl.datamodules.scenarios.base import Scenario

pytestmark = pytest.mark.filterwarnings("ignore")
UPDATES = 3


class Blurry(Scenario):
    """Three tasks that share classes, in an order of arrival that is not sorted; every sample once."""

    order = "stream"

    def train_tasks(self, labels: Tensor, domains: Any, num_classes: int, seed: int) -> list[Tensor]:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
        late = order[torch.isin(labels[order], torch.tensor([4, 5]))]
        early = order[~torch.isin(labels[order], torch.tensor([4, 5]))]
        first = early[:9][labels[early[:9]].argsort(stable=True, descending=True)]  # class after class
        return [first, torch.cat([early[9:], late[:6]]), late[6:]]


class Recorder(Callback):
    """Writes down every step: the epoch, the images, their labels, and who was exposed to what."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Tensor, list[int]]] = []
        self.exposures: list[tuple[int, tuple[int, ...]]] = []
        self.masks: list[list[int]] = []

    def on_exposure(self, trainer: Trainer, pl_module: LightningModule, classes: tuple[int, ...]) -> None:
        self.exposures.append((len(self.steps), classes))

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if hasattr(pl_module, "continual"):
            mask = pl_module.continual.mask
            assert torch.equal(mask.eval_allowed.nonzero().flatten(), torch.tensor(trainer.datamodule.exposed_classes))
            self.masks.append(mask.train_allowed.nonzero().flatten().tolist())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append((trainer.current_epoch, batch[0].clone(), batch[1].tolist()))


def online(**options: Any) -> Any:
    return make_stream(
        scenario=options.pop("scenario", Blurry()),
        epochs_per_task=1,
        **{"updates_per_batch": UPDATES, "seed": 1, **options},
    )


def fit(
    *callbacks: Callback, ckpt_path: Any = None, stream: Any = None, processes: int = 1, **trainer: Any
) -> TinyModule:
    seed_everything(1)
    module = TinyModule(dropout=0.0 if processes > 1 else 0.2)
    options = {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
    fitted = make_trainer(None, callbacks, **options, **trainer)
    fitted.fit(module, datamodule=stream or online(), ckpt_path=ckpt_path)
    return module


# ---------------------------------------------------------------------- pure functions


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40), position=st.integers(0, 45))
def test_exposure_is_what_has_arrived(labels, position):
    from lightning_cl.datamodules.stream_plan import first_arrivals

    pairs = first_arrivals(torch.tensor(labels), sorted(set(labels)))
    assert exposed((7,), pairs, position) == tuple(sorted({7, *labels[:position]}))
    assert arrived(pairs, position) == len(set(labels[:position]))


@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_every_batch_comes_as_often_as_told(count, batch_size, updates, drop_last):
    once = TrainPlan(torch.arange(count), batch_size, drop_last, shuffle=False)
    often = TrainPlan(torch.arange(count), batch_size, drop_last, shuffle=False, updates=updates)
    assert len(often) == updates * len(once)
    for b in range(len(often)):
        batch, expected = often.batch(often.order(0), b, 2, 1), once.batch(once.order(0), b // updates, 2, 1)
        assert batch.index.tolist() == expected.index.tolist()
        assert (batch.real, batch.weight, batch.update) == (expected.real, expected.weight, b % updates)


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 4))
def test_weights_make_the_mean_over_stream_and_joined_rows(rows, total, world_size):
    from lightning_cl.datamodules.sampling import share

    plan = TrainPlan(torch.arange(rows), rows, shuffle=False)
    losses, mean = torch.arange(rows + total, dtype=torch.float64) ** 2, 0.0
    for rank in range(world_size):
        batch = plan.batch(plan.order(0), 0, world_size, rank)
        start, stop = share(total, world_size, rank)
        own = torch.cat([batch.index[: batch.real], torch.arange(rows + start, rows + stop)])
        joined = Joined(stop - start, total, torch.zeros(total)) if total else None
        if len(own):
            mean += joint_weight(batch, rows, joined, world_size) * float(losses[own].mean()) / world_size
    assert mean == pytest.approx(float(losses.mean()))


# ---------------------------------------------------------------------- a run


def test_one_ordered_pass_with_several_updates_and_fresh_augmentation():
    seen, stream = Recorder(), online()
    fit(seen, stream=stream)
    for task, index in enumerate(stream.layout.train_index):
        steps = [(x, y) for epoch, x, y in seen.steps if epoch == task]
        labels = stream.source.train_labels[index].tolist()
        assert len(steps) == UPDATES * -(-len(index) // 4)
        for first in range(0, len(steps), UPDATES):
            (x, y), *again = steps[first : first + UPDATES]
            at = first // UPDATES * 4
            assert y == labels[at : at + 4]
            assert all(other == y and not torch.equal(image, x) for image, other in again)


def test_classes_are_exposed_by_their_first_sample_and_never_before():
    seen, stream = Recorder(), online()
    fit(seen, FineTuning(train_mask="seen"), stream=stream)
    known: set[int] = set()
    expected = []
    for step, (_, _, labels) in enumerate(seen.steps):
        if not known.issuperset(labels):
            known |= set(labels)
            expected.append((step, tuple(sorted(known))))
    assert seen.exposures == expected
    assert len(expected) > 3
    assert known == set(range(NUM_CLASSES))


@pytest.mark.parametrize("train_mask", ["task", "seen", "all", "batch"])
def test_masks_follow_the_exposure(train_mask):
    seen = Recorder()
    fit(FineTuning(train_mask=train_mask), seen)
    known: set[int] = set()
    for mask, (_, _, labels) in zip(seen.masks, seen.steps, strict=True):
        known |= set(labels)
        wanted = {"all": set(range(NUM_CLASSES)), "batch": set(labels)}.get(train_mask, known)
        assert mask == sorted(wanted)


def test_rows_of_unexposed_classes_do_not_move():
    class Watch(Recorder):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            absent = [c for c in range(NUM_CLASSES) if c not in trainer.datamodule.exposed_classes]
            moved.append(not torch.equal(pl_module.net[-1].weight[absent], start[absent]))
            moved_rows.append(not torch.equal(pl_module.net[-1].weight, start))

    moved, moved_rows = [], []
    seed_everything(1)
    start = TinyModule(0.2).net[-1].weight.detach().clone()
    fit(FineTuning(train_mask="seen"), Watch())
    assert not any(moved)
    assert all(moved_rows)


def test_samples_are_counted_once_however_many_updates():
    evaluation = ContinualEvaluation(report=False, print_table=False)
    stream = online()
    fit(evaluation, stream=stream)
    assert evaluation.samples_seen == [len(index) for index in stream.layout.train_index]
    assert sum(evaluation.samples_seen) == sum(SIZES)


class Predictions(Callback):
    """Validates in mid-task and writes down the exposure at that time."""

    def __init__(self) -> None:
        self.exposed: list[tuple[int, ...]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.exposed.append(trainer.datamodule.exposed_classes)


def test_a_validation_in_mid_task_knows_only_what_has_arrived():
    seen, watch = Recorder(), Predictions()
    fit(watch, seen, val_check_interval=2)
    assert len(watch.exposed[0]) < len(watch.exposed[-1]) == NUM_CLASSES
    assert watch.exposed[0] == tuple(sorted({c for _, _, labels in seen.steps[:2] for c in labels}))


@pytest.mark.parametrize("step", [1, 2, 3, 8, 9, 17])
def test_a_run_resumed_between_two_updates_ends_in_the_same_bits(tmp_path, step):
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    whole, resumed = Recorder(), Recorder()
    expected = fit(FineTuning(train_mask="seen"), whole, saving)
    actual = fit(FineTuning(train_mask="seen"), resumed, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(actual.parameters(), expected.parameters(), strict=True))
    assert [y for *_, y in resumed.steps] == [y for *_, y in whole.steps[step:]]
    assert resumed.exposures == [(at - step, classes) for at, classes in whole.exposures if at >= step]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_see_the_same_stream(tmp_path, processes):
    class Save(Recorder):
        def on_train_end(self, trainer, pl_module):
            torch.save((self.exposures, self.masks), tmp_path / f"{trainer.world_size}-{trainer.global_rank}.pt")

    def rank() -> None:
        module = fit(FineTuning(train_mask="batch"), Save(), processes=processes)
        torch.save(list(module.parameters()), tmp_path / f"weights{module.trainer.global_rank}.pt")

    assert in_forked_processes(rank, processes) == [0] * processes
    seed_everything(1)
    alone = TinyModule()
    trainer = make_trainer(None, [FineTuning(train_mask="batch"), Save()])
    trainer.fit(alone, datamodule=online())
    expected = torch.load(tmp_path / "1-0.pt")
    for number in range(processes):
        assert torch.load(tmp_path / f"{processes}-{number}.pt") == expected
        for a, b in zip(torch.load(tmp_path / f"weights{number}.pt"), alone.parameters(), strict=True):
            assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_samples_drawn_by_position_are_augmented_by_the_seed_alone():
    stream = online()
    stream.setup()
    index = torch.tensor([5, 5, 2])
    torch.manual_seed(0)
    first = stream.batch(index, seed=1)
    torch.manual_seed(1)
    again, other, plain = stream.batch(index, seed=1), stream.batch(index, seed=2), stream.batch(index, "eval")
    assert first[1].tolist() == stream.source.train_labels[index].tolist()
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])  # the same sample twice, augmented twice
    assert torch.equal(plain[0][0], plain[0][1])


def test_part_of_the_evaluation_data_can_be_served_at_any_time():
    stream = online()
    stream.setup()
    index = torch.tensor([7, 1, 4, 12, 2])
    labels = [label for _, y in stream.anytime_dataloader(index) for label in y.tolist()]
    batches = [stream.eval_batch(b, "anytime") for b in range(2)]
    assert torch.cat([b.index for b in batches]).tolist() == index.tolist()
    assert torch.cat([b.labels for b in batches]).tolist() == labels == stream.source.test_labels[index].tolist()


# ---------------------------------------------------------------------- bad input


def test_several_updates_need_an_online_stream():
    stream = make_stream(updates_per_batch=2)
    with pytest.raises(ValueError, match=r"`updates_per_batch` is 2, but ClassIncremental is no online stream"):
        stream.setup()


def test_updates_must_be_positive():
    with pytest.raises(ValueError, match="`updates_per_batch` is 0; give a number of steps of at least 1"):
        make_stream(updates_per_batch=0)


def test_an_online_stream_has_one_pass():
    stream = make_stream(scenario=Blurry(), epochs_per_task=2)
    with pytest.raises(ValueError, match=r"Blurry is an online stream.*set `epochs_per_task=1`"):
        stream.setup()


def test_an_online_stream_keeps_its_own_loader():
    class Shuffled(ContinualDataModule):
        def train_dataloader(self):
            super().train_dataloader()
            return DataLoader(TensorDataset(torch.rand(12, 3, 8, 8), torch.arange(12) % 6), batch_size=4, shuffle=True)

    plain = online()
    with pytest.raises(ValueError, match=r"Shuffled.train_dataloader` gives a DataLoader, but Blurry is an online"):
        fit(stream=Shuffled(plain.source, plain.scenario, batch_size=4))


def test_a_task_that_drop_last_would_empty_is_named_before_the_first_step():
    steps, stream = Recorder(), online()
    stream.setup()
    sizes = [len(index) for index in stream.layout.train_index]
    late = [sizes[0], sizes[1] + 1, sizes[2]]  # the batch of the second task alone is too large
    said = rf"task 1 has {sizes[1]} training samples, fewer than the global batch size {late[1]}, and `drop_last=True`"
    with pytest.raises(ValueError, match=said):
        fit(steps, stream=online(drop_last=True, batch_size=late))
    assert steps.steps == []
