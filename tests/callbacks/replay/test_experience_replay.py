"""Experience replay: what a step is given, what is remembered, and what is refused."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from conformance.runs import assert_same_bits
from conformance.streams import NUM_CLASSES
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from nn.replay.loops import ReservoirLoop, assert_same_state
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms import v2

from lightning_cl.callbacks import (
    GEM,
    ContinualCallback,
    DERPlusPlus,
    PrototypeClassifier,
)
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.stream_dataset import StreamDataset

from .replay_runs import (
    BATCH,
    DRAWN,
    MEMORY,
    Net,
    Sample,
    Steps,
    as_dict,
    as_list,
    as_tuple,
    fit,
    make_stream,
    parts,
    replay,
    result,
)

pytestmark = pytest.mark.filterwarnings("ignore")


# ---------------------------------------------------------------------- what a step is given


def replayed(stream, steps, remembered):
    """The positions that reservoir replay adds to every step, by a plain loop; and what it holds in the end."""
    buffer, generator = ReservoirLoop(MEMORY), torch.Generator().manual_seed(mix_seed(stream.seed, 0x5E91A7))
    added = []
    for step, rows in enumerate(steps.rows):
        slots = torch.randperm(len(buffer.slots), generator=generator)[:DRAWN]
        added.append([buffer.slots[slot][0] for slot in slots.tolist()])
        if remembered(step):
            for row in rows.tolist():
                buffer.offer(row, int(stream.source.train_labels[row]), generator)
    return added, buffer.slots


@pytest.mark.parametrize("store", ["index", "sample"])
@pytest.mark.parametrize("online", [True, False], ids=["online", "epochs"])
def test_every_step_gets_the_samples_of_a_plain_loop(online, store):
    steps, method, stream = Steps(), replay(store=store), make_stream(online)
    fit(method, steps, stream=stream)
    # Online: after the second of two updates. Else: in the first of two epochs of three batches.
    added, held = replayed(stream, steps, lambda step: step % 2 == 1 if online else step % 6 < 3)
    images = torch.stack([stream.source.eval_transform()(stream.source.item("train", i)[0]) for i in range(81)])
    assert len(steps.batches) == 18
    for batch, rows, more, joined in zip(steps.batches, steps.rows, added, steps.joined, strict=True):
        expected = torch.cat([rows, torch.tensor(more, dtype=torch.long)])
        assert torch.equal(batch[0], images[expected])  # not augmented, so an image tells which sample it is
        assert torch.equal(batch[1], stream.source.train_labels[expected])
        if more:
            assert (joined.local, joined.total) == (len(more), len(more))
            assert torch.equal(joined.labels, batch[1][len(rows) :])
        else:
            assert joined is None
    buffer = method.memory.buffer
    assert buffer.labels.tolist() == [held[slot][1] for slot in range(MEMORY)]
    if store == "index":
        assert buffer.read(torch.arange(MEMORY)).tolist() == [held[slot][0] for slot in range(MEMORY)]
    assert stream.joined is None


@pytest.mark.parametrize("policy", ["reservoir", "class_balanced", "ring"])
def test_a_class_is_never_replayed_before_it_arrived(policy):
    steps = Steps()
    fit(replay(policy=policy), steps)
    for batch, exposed in zip(steps.batches, steps.exposed, strict=True):
        assert set(batch[1].tolist()) <= set(exposed)
    more = [len(batch[1]) - len(rows) for batch, rows in zip(steps.batches, steps.rows, strict=True)]
    assert more[:2] == [0, 0]  # two updates on the first samples
    assert set(more[6:]) == {DRAWN}


def test_every_update_draws_anew_and_positions_are_augmented_afresh():
    steps = Steps()
    fit(replay(memory_size=DRAWN), steps, stream=make_stream(augment="crop", updates_per_batch=3))
    drawn = [batch[0][-DRAWN:] for batch in steps.batches[3:]]
    first, second = drawn[:2]  # the same five samples, since the memory holds no more
    assert sorted(steps.batches[3][1][-DRAWN:].tolist()) == sorted(steps.batches[4][1][-DRAWN:].tolist())
    assert not any(torch.equal(one, other) for one in first for other in second)
    steps = Steps()
    fit(replay(memory_size=DRAWN, store="sample"), steps, stream=make_stream(augment="crop", updates_per_batch=3))
    first, second = (batch[0][-DRAWN:] for batch in steps.batches[3:5])
    assert all(any(torch.equal(one, other) for other in second) for one in first)


@pytest.mark.parametrize("store", ["index", "sample"])
@pytest.mark.parametrize("collate", [as_dict, as_tuple, as_list])
def test_a_joined_batch_has_the_form_of_the_users(collate, store):
    steps, plain = Steps(), Steps()
    kind = {as_dict: dict, as_tuple: Sample, as_list: list}[collate]
    ended = fit(replay(store=store), steps, stream=make_stream(collate_fn=collate))
    assert_same_bits(result(ended), result(fit(replay(store=store), plain)))  # as with plain pairs
    for batch in steps.batches:
        assert type(batch) is kind
        labels = parts(batch)[1].tolist()
        if collate is not as_list:
            names = batch["meta"]["name"] if collate is as_dict else batch.name
            assert list(names) == [f"n{c}" for c in labels]


class Hooked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.training:
            self.seen.append(len(batch[1]))
        return [batch[0] + 1.0, batch[1]]


def test_the_modules_own_hook_sees_the_joined_batch_and_memory_is_kept_as_it_was_before():
    module, steps, method = Hooked(), Steps(), replay(store="sample")
    stream = make_stream()
    fit(method, steps, module=module, stream=stream)
    assert module.seen == [len(batch[1]) for batch in steps.batches]
    images = {i: stream.source.eval_transform()(stream.source.item("train", i)[0]) for i in range(81)}
    for stored in method.memory.buffer.read(torch.arange(MEMORY))[0]:
        assert any(torch.equal(stored, image) for image in images.values())


def test_lightning_does_not_warn_of_the_hook():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(replay(), max_steps=1)
    assert [str(w.message) for w in said if "on_after_batch_transfer" in str(w.message)] == []


class InPlace(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch[0].mul_(0.5)
        return super().training_step(batch, batch_idx)


def test_a_step_that_works_in_place_does_not_change_the_memory():
    methods = replay(store="sample"), replay(store="sample")
    fit(methods[0], module=InPlace())
    fit(methods[1])
    assert_same_state(methods[0].state_dict(), methods[1].state_dict())


class Elsewhere(ContinualCallback):
    """Moves batches to the device at all times, as methods do that take statistics."""

    def __init__(self) -> None:
        self.sizes: set[tuple[int, int]] = set()

    def move(self, trainer: Trainer, *_: Any) -> None:
        stream = trainer.datamodule
        for batch in stream.train_loader_for(stream.task_index, "train"):
            moved = trainer.strategy.batch_to_device(trainer.lightning_module._on_before_batch_transfer(batch))
            self.sizes.add((len(batch[1]), len(moved[1])))

    on_task_start = on_task_end = on_exposure = on_train_epoch_start = on_train_epoch_end = move
    on_train_batch_start = on_before_backward = on_train_batch_end = on_validation_epoch_start = move


@pytest.mark.parametrize("online", [True, False], ids=["online", "epochs"])
def test_only_the_batches_of_the_loop_are_joined(online):
    elsewhere, steps, alone = Elsewhere(), Steps(), Steps()
    fit(replay(), elsewhere, steps, stream=make_stream(online))
    fit(replay(), alone, stream=make_stream(online))
    assert elsewhere.sizes == {(BATCH, BATCH), (1, 1)}
    assert all(torch.equal(a[0], b[0]) for a, b in zip(steps.batches, alone.batches, strict=True))


# ---------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory_size": 0}, "`memory_size` is 0; give a number of samples of at least 1"),
        ({"batch_size": -1}, "`batch_size` is -1"),
        ({"memory_size": 4, "batch_size": 5}, "a memory of 4 samples cannot fill a batch of 5 different ones"),
        ({"policy": "fifo"}, "`policy` is 'fifo'; give one of 'reservoir', 'class_balanced', 'ring'"),
        ({"store": "disk"}, "`store` is 'disk'; give one of 'index', 'sample'"),
        ({"device": "cuda"}, '`store="index"` stores none'),
        ({"train_mask": "none"}, "`train_mask` is 'none'"),
    ],
)
def test_bad_settings_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        replay(**options)


@pytest.mark.parametrize("other", [GEM, DERPlusPlus])
def test_two_memories_are_refused(other):
    for order in (1, -1):
        methods = [replay(), other(memory_size=MEMORY, batch_size=DRAWN)][::order]
        names = " and ".join(type(method).__name__ for method in methods)
        with pytest.raises(ValueError, match=f"{names} each keep a memory of earlier samples, but a module has one"):
            fit(*methods)


def test_company_and_streams_that_leave_nothing_to_train_are_refused():
    for order in (1, -1):
        with pytest.raises(ValueError, match="PrototypeClassifier makes the answers without it, so nothing"):
            fit(*[replay(), PrototypeClassifier()][::order])
    with pytest.raises(ValueError, match='`policy="ring"` needs a slot for each of the 6 classes'):
        fit(replay(memory_size=5, policy="ring"))
    with pytest.raises(ValueError, match="ExperienceReplay needs a stream, but the Trainer was given plain"):
        Trainer(logger=False, callbacks=[replay()], accelerator="cpu").fit(Net(), train_dataloaders=[1])

    class Augmenting(ContinualDataModule):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch

    stream = make_stream()
    with pytest.raises(ValueError, match="Augmenting overrides `on_after_batch_transfer`"):
        fit(replay(), stream=Augmenting(stream.source, stream.scenario))


def cutmix(items):
    return v2.CutMix(num_classes=NUM_CLASSES)(*default_collate(items))


def shifted(items):
    images, labels = default_collate(items)
    return images, (labels + 1) % NUM_CLASSES


def with_scale(items):
    return [*default_collate(items), torch.tensor(0.5)]


@pytest.mark.parametrize("store", ["index", "sample"])
def test_mixed_samples_come_again_with_their_mixed_labels(store):
    steps = Steps()
    fit(replay(store=store, train_mask="all"), steps, stream=make_stream(collate_fn=cutmix))
    for batch, rows, joined in zip(steps.batches, steps.rows, steps.joined, strict=True):
        assert batch[1].shape == (len(rows) + (0 if joined is None else joined.local), NUM_CLASSES)
        torch.testing.assert_close(batch[1].sum(1), torch.ones(len(batch[1])))
    if store == "sample":  # as they were when they came
        came = [*torch.cat([batch[0][: len(rows)] for batch, rows in zip(steps.batches, steps.rows, strict=True)])]
        again = torch.cat([batch[0][len(rows) :] for batch, rows in zip(steps.batches, steps.rows, strict=True)])
        assert all(any(torch.equal(image, known) for known in came) for image in again)


@pytest.mark.parametrize("store", ["index", "sample"])
@pytest.mark.parametrize(
    ("collate", "said"),
    [
        (shifted, r"other class ids than the stream's: sample \d+ of the training split has \d in the batch and \d in"),
        (with_scale, r"`batch\[2\]` is a tensor of shape \(\), but replay needs one row for each of the 13 samples"),
    ],
)
def test_a_batch_that_cannot_be_replayed_is_refused_in_the_first_step(collate, said, store):
    steps = Steps()
    with pytest.raises(ValueError, match=said):
        fit(replay(store=store), steps, stream=make_stream(collate_fn=collate))
    assert steps.batches == []


def test_a_checkpoint_with_another_memory_is_refused(tmp_path):
    fit(replay(), ModelCheckpoint(tmp_path, "last", every_n_train_steps=7), max_steps=7)
    for options, said in (
        ({"memory_size": 20}, "12 slots, but this one 'reservoir' and 20"),
        ({"policy": "class_balanced"}, "'reservoir' and 12 slots, but this one 'class_balanced'"),
        ({"store": "sample"}, 'made with `store="index"`, but this replay has `store="sample"`'),
    ):
        with pytest.raises(ValueError, match=said):
            fit(replay(**options), ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("method", "resumed"), [(partial(replay, policy="class_balanced"), 2), (partial(DERPlusPlus, MEMORY, DRAWN), 3)]
)
def test_a_worker_reads_the_memory_a_step_ahead_and_nothing_else_changes(method, resumed, tmp_path, monkeypatch):
    whole = fit(method(), stream=make_stream(augment="crop"), dropout=0.3)
    read, made = [], StreamDataset.__getitems__
    monkeypatch.setattr(StreamDataset, "__getitems__", lambda self, keys: read.append(1) or made(self, keys))
    # Worker processes have a list of their own. The first batch of an epoch is read here, as its worker is started, and
    # so is the second draw of the first step, if what the step remembers comes between the draws that are expected.
    changed = {"dropout": 0.3, "stream": make_stream(augment="crop", num_workers=1)}
    fit(method(), ModelCheckpoint(tmp_path, "at", every_n_train_steps=9), max_steps=9, **changed)
    assert len(read) == 2  # in 9 steps of two epochs
    changed["stream"] = make_stream(augment="crop", num_workers=1)
    trainer = fit(method(), ckpt_path=tmp_path / "at.ckpt", **changed)
    assert len(read) == 2 + resumed
    assert_same_bits(result(trainer), result(whole))
