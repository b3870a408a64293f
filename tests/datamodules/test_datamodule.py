from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from tiny_stream import BATCHES, EPOCHS, NUM_CLASSES, Spy, TinyModule, make_source, make_stream, make_trainer
from torch import Tensor

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, Scenario

pytestmark = pytest.mark.filterwarnings("ignore")


class OnlineStream(ClassIncremental):
    order = "stream"


def fit(stream: ContinualDataModule, ckpt_path: Any = None, trainer: Any = None, **options: Any) -> Any:
    trainer = trainer or make_trainer(options.pop("folder", None), **options)
    trainer.fit(TinyModule(), datamodule=stream, ckpt_path=ckpt_path)
    return trainer


def labels_of(loader: Any) -> list[list[int]]:
    return [batch[1].tolist() for batch in loader]


# ---------------------------------------------------------------------- without a Trainer


def test_the_plan_is_known_without_a_trainer():
    stream = make_stream()
    stream.prepare_data()
    stream.setup()
    assert isinstance(stream, LightningDataModule)
    assert stream.schedule.epochs == EPOCHS
    assert [(t.index, t.classes, t.seen_classes, t.first_epoch, t.epochs, t.order) for t in stream.tasks] == [
        (0, (0, 1), (0, 1), 0, 2, "shuffled"),
        (1, (2, 3), (0, 1, 2, 3), 2, 1, "shuffled"),
        (2, (4, 5), (0, 1, 2, 3, 4, 5), 3, 2, "shuffled"),
    ]
    assert stream.table().hash == make_stream().table().hash
    assert stream.info.fingerprint == make_stream(num_workers=1, batch_size=2).info.fingerprint


def test_every_task_has_its_own_batch_size(tmp_path):
    seen = []

    class Sizes(Spy):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((trainer.datamodule.task_index, len(batch[1])))
            assert trainer.datamodule.train_batch_size(batch_idx) == len(batch[1])

    stream = make_stream(batch_size=[7, 4, 2])
    assert stream.eval_batch_size == 7
    fit(stream, folder=tmp_path, callbacks=[Sizes()])
    assert seen == [(0, 7)] * 2 + [(1, 4), (1, 4), (1, 3)] + ([(2, 2)] * 7 + [(2, 1)]) * 2
    with pytest.raises(ValueError, match="`batch_size` has 2 entries but the stream has 3 tasks; give one number, or"):
        make_stream(batch_size=[7, 4]).setup()
    with pytest.raises(ValueError, match="`batch_size` is 0; give a number of samples of at least 1"):
        make_stream(batch_size=[7, 0, 2])


def test_the_stream_is_laid_out_on_first_use():
    stream = make_stream()
    assert stream.info.num_classes == NUM_CLASSES
    assert stream.task.index == 2  # nothing was trained: evaluate all of it
    assert [len(labels) for labels in labels_of(stream.test_dataloader())] == [4, 4, 4, 4, 2]


def test_a_pass_over_a_finished_task():
    stream = make_stream()
    first = list(stream.train_loader_for(1))
    assert sorted(label for _, labels in first for label in labels.tolist()) == [2] * 5 + [3] * 6
    again = list(stream.train_loader_for(1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    augmented = list(stream.train_loader_for(1, transform="train"))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, augmented, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, augmented, strict=True))
    other = list(stream.train_loader_for(1, epoch=1))
    assert not all(torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_an_evaluation_batch_and_what_is_known_of_it():
    stream = make_stream(evaluate_on="all", eval_batch_size=5)
    loader = stream.val_dataloader()
    assert [len(labels) for labels in labels_of(loader)] == [5, 5, 5, 3]
    for batch_idx, labels in enumerate(labels_of(loader)):
        samples = stream.eval_batch(batch_idx)
        assert samples.labels.tolist() == labels == stream.source.test_labels[samples.index].tolist()
        assert samples.tasks.tolist() == [label // 2 for label in labels]


def test_train_view_shows_training_images_without_augmentation():
    plain, augmented = make_stream(), make_stream()
    plain.train_view = "eval"
    pixels = {image.numpy().tobytes() for images, _ in plain.train_loader_for(2) for image in images}
    assert {image.numpy().tobytes() for images, _ in plain.train_dataloader() for image in images} == pixels
    assert {image.numpy().tobytes() for images, _ in augmented.train_dataloader() for image in images} != pixels


def test_transforms_can_be_replaced_or_left_out():
    def ones(image: Tensor) -> Tensor:
        return torch.ones(2)

    stream = make_stream(train_transform=ones, eval_transform=False)
    assert next(iter(stream.train_dataloader()))[0].tolist() == [[1.0, 1.0]] * 4
    assert next(iter(stream.val_dataloader()))[0].dtype == torch.uint8


def test_batch_keys_and_collate_fn():
    batch = next(iter(make_stream(batch_keys=("pixel_values", "labels")).train_dataloader()))
    assert {name: value.shape for name, value in batch.items()} == {"pixel_values": (4, 1, 8, 8), "labels": (4,)}
    assert next(iter(make_stream(collate_fn=len).train_dataloader())) == 4


def test_drop_last_leaves_out_batches_that_are_not_full():
    stream = make_stream(drop_last=True)
    assert [len(labels) for labels in labels_of(stream.train_dataloader())] == [4, 4, 4]  # of 15 samples
    assert sum(len(labels) for labels in labels_of(stream.train_loader_for(2))) == 15


def test_online_stream_comes_in_order_and_once():
    stream = make_stream(scenario=OnlineStream(3, class_order=range(6)), epochs_per_task=1)
    stream.setup()
    assert stream.task.order == "stream"
    index = stream.layout.train_index[2]
    assert sum(labels_of(stream.train_dataloader()), []) == stream.source.train_labels[index].tolist()  # noqa: RUF017
    with pytest.raises(
        ValueError, match="OnlineStream is an online stream, one ordered pass, but `epochs_per_task` is"
    ):
        make_stream(scenario=OnlineStream(3)).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` is 0; give a number of samples of at least 1"),
        ({"eval_batch_size": -1}, "`eval_batch_size` is -1"),
        ({"evaluate_on": "past"}, '`evaluate_on` is \'past\'; give "seen" or "all"'),
        ({"early_stopping": "epoch"}, '`early_stopping` is \'epoch\'; give "stream" or "task"'),
        ({"batch_keys": ("image",)}, r"`batch_keys` is \('image',\); name image and label"),
        ({"batch_keys": "xy"}, "`batch_keys` is 'xy'"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        make_stream(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs_per_task": [1, 2]}, "`epochs_per_task` has 2 entries but the stream has 3 tasks"),
        ({"epochs_per_task": 0}, "every task needs at least one epoch"),
        ({"val_split": 1.5}, "`val_split` is 1.5; give a fraction"),
        ({"drop_last": True, "batch_size": 8}, "task 0 has 7 training samples, fewer than the global batch size 8"),
        ({"source": ArraySource(*[(np.zeros((4, 8, 8), np.uint8), [0, 1, 2, 9])] * 2)}, "no training samples: 3"),
    ],
)
def test_bad_streams_are_refused_before_training(options, message):
    module = TinyModule()
    with pytest.raises(ValueError, match=message):
        make_trainer().fit(module, datamodule=make_stream(**options))


# ---------------------------------------------------------------------- in a fit


@pytest.mark.parametrize(("evaluate_on", "sizes"), [("seen", [6, 6, 12, 18, 18]), ("all", [18] * 5)])
def test_one_validation_loader_that_grows_with_the_tasks(evaluate_on, sizes):
    spy = Spy()
    trainer = fit(make_stream(evaluate_on=evaluate_on), callbacks=[spy])
    assert [detail for _, _, detail in spy.of("validation")] == list(zip((0, 0, 1, 2, 2), sizes, strict=True))
    assert "val_loss" in trainer.callback_metrics  # one loader: no `/dataloader_idx_0`


def test_val_split_validates_on_held_out_training_data():
    spy = Spy()
    stream = make_stream(val_split=0.25)
    fit(stream, callbacks=[spy])
    held = [len(index) for index in stream.layout.evaluation["val"].index]
    assert [detail for _, _, detail in spy.of("validation")] == [
        (task, sum(held[: task + 1])) for task in (0, 0, 1, 2, 2)
    ]


def test_max_epochs_follows_the_schedule_when_unset():
    for options in ({"max_epochs": None}, {}, {"max_epochs": 5}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer = fit(make_stream(), **options)
        assert (trainer.current_epoch, trainer.max_epochs) == (5, 5)
        assert not [w for w in caught if "ends the run" in str(w.message)]


def test_a_smaller_max_epochs_wins_with_a_warning():
    spy, stream = Spy(), make_stream()
    with pytest.warns(UserWarning, match="`max_epochs=4` ends the run in task 3 of 3; the whole stream has 5 epochs"):
        trainer = fit(stream, callbacks=[spy], max_epochs=4)
    assert trainer.current_epoch == 4
    assert spy.of("task_end") == [("task_end", 1, 0), ("task_end", 2, 1)]  # task 2 was not finished
    assert stream.task.index == 2


@pytest.mark.parametrize(("given", "whole"), [(1, 0), (2, 1), (3, 2), (4, 2)])
def test_how_many_tasks_will_be_trained_is_said_at_the_start(given, whole):
    said = rf"So {whole} of 3 tasks will be trained to their end.*set `ContinualDataModule\(epochs_per_task={given}\)`"
    trainer = make_trainer(max_epochs=given)
    with pytest.warns(UserWarning, match=said):
        trainer.fit(TinyModule(), datamodule=make_stream())
    assert trainer.datamodule._driver.ended == whole - 1


def test_a_larger_max_epochs_is_an_error():
    with pytest.raises(
        ValueError, match=r"`max_epochs` is 6 but the schedule has 5 epochs \(3 tasks, epochs per task \["
    ):
        fit(make_stream(), max_epochs=6)


def test_lightnings_other_limits_still_work():
    spy = Spy()
    fit(make_stream(), callbacks=[spy], fast_dev_run=True)
    assert spy.of("batch") == [("batch", 0, 0)]
    assert fit(make_stream(), max_steps=5).global_step == 5


@pytest.mark.parametrize("per_device", [False, True])
def test_per_device_reads_batch_sizes_as_of_one_process(per_device, monkeypatch):
    stream = make_stream(per_device=per_device, eval_batch_size=3)
    monkeypatch.setattr(stream, "_world", lambda: (2, 1))
    train, val = stream.train_dataloader(), stream.val_dataloader()
    assert (train.batch_size, val.batch_size) == ((8, 6) if per_device else (4, 3))
    assert [len(labels) for labels in labels_of(train)] == ([4, 3] if per_device else [2, 2, 2, 1])


def test_another_run_may_have_other_processes_and_another_view(monkeypatch):
    stream = make_stream()
    fit(stream)
    stream.val_dataloader()
    monkeypatch.setattr(stream, "_world", lambda: (2, 1))
    stream.train_view = "eval"
    stream.setup("validate")
    assert [len(labels) for labels in labels_of(stream.train_dataloader())] == [2, 2, 2, 1]
    assert [len(labels) for labels in labels_of(stream.val_dataloader())] == [2, 2, 2, 2, 1]
    assert not stream.train_dataloader().sampler.augment


def test_one_stream_serves_two_trainers():
    stream = make_stream()
    runs = []
    for _ in range(2):
        spy = Spy()
        torch.manual_seed(0)
        module = TinyModule()
        make_trainer(callbacks=[spy]).fit(module, datamodule=stream)
        runs.append((spy.events, module.state_dict()))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_one_trainer_goes_on_with_its_stream():
    spy, stream, module = Spy(), make_stream(), TinyModule()
    trainer = make_trainer(callbacks=[spy], max_epochs=1)
    trainer.fit(module, datamodule=stream)
    trainer.fit_loop.max_epochs = -1
    trainer.fit(module, datamodule=stream)  # in the middle of task 0
    whole = Spy()
    fit(make_stream(), callbacks=[whole])
    assert spy.events == whole.events
    with pytest.raises(ValueError, match="nothing is left for another `fit`"):
        trainer.fit(module, datamodule=stream)
    assert spy.events == whole.events


def test_one_trainer_does_not_go_on_with_another_stream():
    trainer = fit(make_stream(epochs_per_task=1))
    with pytest.raises(ValueError, match="task 0 was never started: this Trainer has run before, on other data"):
        trainer.fit(TinyModule(), datamodule=make_stream())


# ---------------------------------------------------------------------- validate, test, predict


def evaluated(stream: ContinualDataModule, stage: str) -> int:
    return len(stream._eval_loaders[stage].sampler.plan.index)


def test_validate_and_test_without_a_fit_cover_all_tasks():
    stream = make_stream()
    assert set(make_trainer().validate(TinyModule(), stream)[0]) == {"val_loss"}
    assert evaluated(stream, "val") == 18
    assert set(make_trainer().test(TinyModule(), stream)[0]) == {"test_loss"}
    assert evaluated(stream, "test") == 18
    assert sum(len(p) for p in make_trainer().predict(TinyModule(), stream)) == 18


def test_validate_after_a_fit_covers_the_tasks_that_were_trained(tmp_path):
    stream, module = make_stream(), TinyModule()
    trainer = make_trainer(tmp_path, max_epochs=2)  # all of task 0
    trainer.fit(module, datamodule=stream)
    trainer.save_checkpoint(tmp_path / "task0.ckpt")
    trainer.validate(module, stream)
    assert (stream.task.index, evaluated(stream, "val")) == (0, 6)
    trainer.test(module, stream)
    assert evaluated(stream, "test") == 18
    fresh = make_stream()
    make_trainer().validate(TinyModule(), fresh, ckpt_path=tmp_path / "task0.ckpt")
    assert (fresh.task.index, evaluated(fresh, "val")) == (0, 6)
    make_trainer().test(TinyModule(), fresh, ckpt_path=tmp_path / "task0.ckpt")
    assert (fresh.task.index, evaluated(fresh, "test")) == (0, 18)


def test_a_test_between_two_fits_leaves_the_driver_alone(tmp_path):
    spy, stream, module = Spy(), make_stream(), TinyModule()
    trainer = make_trainer(tmp_path, callbacks=[spy], max_epochs=1)
    trainer.fit(module, datamodule=stream)
    trainer.save_checkpoint(tmp_path / "epoch0.ckpt")
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, datamodule=stream)
    trainer.test(module, stream, ckpt_path=tmp_path / "epoch0.ckpt")
    trainer.fit_loop.max_epochs = -1
    trainer.fit(module, datamodule=stream)
    assert spy.of("task_start", "task_end") == [
        ("task_start", 0, 0),
        ("task_end", 1, 0),
        ("task_start", 2, 1),
        ("task_end", 2, 1),
        ("task_start", 3, 2),
        ("task_end", 4, 2),
    ]


# ---------------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(tmp_path) -> Any:
    trainer = fit(make_stream(), folder=tmp_path, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "task0.ckpt")
    return tmp_path / "task0.ckpt"


def test_state_is_plain_values_and_tensors(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    assert state["ContinualDataModule"] == {
        "version": 1,
        "info": make_stream().info.state_dict(),
        "planned": list(EPOCHS),
        "epochs": list(EPOCHS),
        "task": 0,
        "exposed": None,
    }
    assert state["lightning_cl"]["info"] == make_stream().info.state_dict()


def test_a_finished_task_is_followed_by_the_next(checkpoint):
    spy = Spy()
    fit(make_stream(), checkpoint, callbacks=[spy])
    assert spy.events[:3] == [("task_start", 2, 1), ("epoch_start", 2, BATCHES[1]), ("batch", 2, 0)]


@pytest.mark.parametrize(
    "options",
    [
        {"source": make_source(sizes=(4, 4, 4, 4, 4, 4))},
        {"scenario": ClassIncremental(3, class_order=[5, 4, 3, 2, 1, 0])},
        {"val_split": 0.3},
    ],
    ids=["source", "scenario", "val_split"],
)
def test_a_checkpoint_of_another_stream_is_refused(checkpoint, options):
    message = "the checkpoint is of another stream: 3 tasks, 6 classes, hash .*, but this stream is 3 tasks, 6 classes"
    with pytest.raises(ValueError, match=message):
        fit(make_stream(**options), checkpoint)


def test_a_checkpoints_schedule_wins_with_a_warning(checkpoint):
    with pytest.warns(UserWarning, match=r"made with \[2, 1, 2\] epochs per task, which wins over `epochs_per_task=3`"):
        trainer = fit(make_stream(epochs_per_task=3), checkpoint)
    assert trainer.current_epoch == 5


def test_a_checkpoint_that_was_not_made_on_a_stream_is_refused(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    del state["lightning_cl"]
    torch.save(state, checkpoint)
    with pytest.raises(
        ValueError, match="not made on a stream of lightning_cl, so the position in the stream is unknown"
    ):
        fit(make_stream(), checkpoint)


def test_scenarios_that_are_not_shuffled_are_known_by_their_order():
    assert Scenario.order == "shuffled"
    assert make_stream(scenario=OnlineStream(3), epochs_per_task=1).tasks[0].order == "stream"
