"""Every kind of violation, planted, is caught by the check that is there for it; honest runs pass, bits unchanged."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conformance.streams import IMAGE_SIZE, NUM_CLASSES, NUM_TASKS, digits, make_stream
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cl.callbacks import ContinualEvaluation, FineTuning, ProtocolGuard
from lightning_cl.callbacks.evaluation.data_checks import content_digest, whole_classes
from lightning_cl.callbacks.evaluation.protocol_probe import by_task, claiming, probe_index, with_others_labels
from lightning_cl.callbacks.evaluation.side_effects import fingerprints, moved_names
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, Joint, SiBlurry
from lightning_cl.metrics import read_report
from lightning_cl.reports.protocol import CHECKS, ProtocolCard, ProtocolError

NOT_MADE = {"remembered features", "tuning", "hidden labels"}  # a module that remembers nothing, a labelled stream


class Honest(LightningModule):
    """A small network that does nothing wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(IMAGE_SIZE**2, 12), nn.ReLU())
        self.fc = nn.Linear(12, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def fit(
    module: LightningModule,
    *callbacks: Callback,
    stream: Any = None,
    folder: Any = None,
    quiet: bool = True,
    **options: Any,
) -> Trainer:
    seed_everything(0, verbose=False)
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        trainer = Trainer(
            **{
                "accelerator": "cpu",
                "devices": 1,
                "max_epochs": -1,
                "logger": False,
                "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "default_root_dir": folder,
                **options,
            },
            callbacks=list(callbacks),
        )
        trainer.fit(module, datamodule=stream or make_stream(epochs_per_task=1))
    return trainer


def card_of(module: LightningModule, *callbacks: Callback, stream: Any = None, **options: Any) -> ProtocolCard:
    """The card of a short run with class masks."""
    torch.manual_seed(0)
    guard = ProtocolGuard(probe=24, print_card=False, **options)
    fit(module, FineTuning(), *callbacks, guard, stream=stream)
    return guard.card


def failed(card: ProtocolCard) -> set[str]:
    return {check.name for check in card.violations}


def test_an_honest_run_passes_every_check():
    card = card_of(Honest())
    assert {check.name: check.result for check in card.checks} == {
        name: "not checked" if name in NOT_MADE else "pass" for name in CHECKS
    }
    assert card["batch size"].tasks == (0, 1, 2)
    assert card["batch size"].compared == "24 samples in batches of 1, 7 and 8"
    assert card["batch mates"].tasks == (1, 2)  # after the first task there is nothing to mix
    assert card["unseen classes"].tasks == (0, 1)  # after the last task all are seen
    assert card["overlap"].tasks == ()


# ---------------------------------------------------------------------- planted: predictions that know the batch


class BatchStatistics(Honest):
    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.fc(features if self.training else features - features.mean(dim=0))


class SortsTheBatch(Honest):
    """Answers come back in the order of brightness, as after a sort that nobody undid."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.fc(features if self.training else features[images.flatten(1).sum(dim=1).argsort()])


class CountsPlaces(Honest):
    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.fc(features if self.training else features + torch.arange(len(images))[:, None] / 10)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (BatchStatistics, {"batch size", "batch mates"}),
        (SortsTheBatch, {"batch size", "batch order", "batch mates"}),
        (CountsPlaces, {"batch size", "batch order", "batch mates"}),
    ],
)
def test_predictions_that_know_the_batch(module, expected):
    card = card_of(module())
    assert failed(card) == expected
    assert card["batch size"].violated == (0, 1, 2)
    assert "test batches of one task tell the task" in card["batch size"].message


class SqueezesTheBatch(Honest):
    """Takes a batch of one for a single image."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]).squeeze()[:, :], batch[1]))


def test_a_module_that_cannot_take_one_sample_is_told_and_the_run_goes_on():
    card = card_of(SqueezesTheBatch())
    assert failed(card) == {"batch size"}
    assert card["batch size"].violated == (0, 1, 2)
    assert card["batch size"].message.startswith(
        "the module cannot evaluate every size of batch (IndexError: too many "
    )


class Votes(Honest):
    """All samples of a batch get the offset that most of them want; it confesses nothing."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        if not self.training:
            features = features + F.one_hot(features.argmax(dim=1).mode().values, features.shape[1])
        return self.fc(features)


def test_a_vote_over_the_batch_is_measured_and_a_confessed_one_fails_in_any_case():
    assert {"batch size", "batch mates"} <= failed(card_of(Votes()))
    module = Honest()
    module.body.batch_dependent = True  # but on this probe it would make no difference
    card = card_of(module)
    assert failed(card) == {"batch size"}
    assert "a vote over the batch; it changes the logits of 0 of 14 samples" in card["batch size"].message


# ---------------------------------------------------------------------- planted: predictions that are told


class ReadsTheTask(Honest):
    """Knows which classes to choose from, as no one does at test time."""

    def task(self) -> int:
        return self.trainer.datamodule.task_index

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.fc(features if self.training else features * (1 + self.task()))


class ReadsTheTaskObject(ReadsTheTask):
    def task(self) -> int:
        return self.trainer.datamodule.task.classes[0]


class ReadsTheEpoch(ReadsTheTask):
    def task(self) -> int:
        return self.current_epoch


@pytest.mark.parametrize("module", [ReadsTheTask, ReadsTheTaskObject, ReadsTheEpoch])
def test_a_module_that_reads_the_current_task(module):
    card = card_of(module())
    assert failed(card) == {"claimed task"}
    assert "reads the current task (or epoch) while it evaluates" in card["claimed task"].message


class ReadsExposedClasses(Honest):
    """Which classes have been seen is no secret."""

    def forward(self, images: Tensor) -> Tensor:
        stream = self.trainer.datamodule
        seen = torch.zeros(12)
        seen[: len(stream.exposed_classes) + len(stream.task.seen_classes)] = 1
        return self.fc(self.body(images) * seen)


def test_seen_classes_may_be_read():
    assert failed(card_of(ReadsExposedClasses())) == set()


class ReadsLabels(Honest):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = batch
        self.fc(self.body(images) * (1 + labels)[:, None])


class ReadsTheStreamsTasks(Honest):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        samples = self.trainer.datamodule.eval_batch(batch_idx)
        self.fc(self.body(batch[0]) * (1 + samples.tasks)[:, None])


def test_a_module_that_reads_labels_or_tasks():
    assert failed(card_of(ReadsLabels())) == {"labels"}
    card = card_of(ReadsTheStreamsTasks())
    assert failed(card) == {"labels"}
    assert card["labels"].violated == (1, 2)


class LogsByTask(Honest):
    """Asks the stream for the tasks, and only to sort its losses; collects outputs by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.by_task: dict[int, float] = {}
        self.batches = 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        tasks = self.trainer.datamodule.eval_batch(batch_idx).tasks
        losses = F.cross_entropy(self(batch[0]), batch[1], reduction="none")
        for task in tasks.unique().tolist():
            self.by_task[task] = self.by_task.get(task, 0.0) + float(losses[tasks == task].sum())
        self.outputs.append(losses)
        self.batches += 1
        self.last = losses

    def on_validation_epoch_end(self) -> None:
        self.log("all_losses", torch.cat(self.outputs).sum())
        self.outputs.clear()


def test_what_a_module_collects_is_its_own():
    collected = []
    for guards in ([], [ProtocolGuard(probe=16, print_card=False)]):
        torch.manual_seed(0)
        module = LogsByTask()
        trainer = fit(module, FineTuning(), *guards)
        collected.append((module.outputs, module.by_task, module.batches, trainer.callback_metrics["all_losses"]))
    assert collected[0] == collected[1]
    assert collected[0][1].keys() == {0, 1, 2}
    assert failed(guards[0].card) == set()


# ---------------------------------------------------------------------- planted: unseen classes


class LetsUnseenClassesThrough(FineTuning):
    """A method that undoes the mask for evaluation."""

    state_key = "test.LetsUnseenClassesThrough"

    def on_task_start(self, trainer: Any, pl_module: Any, task: Any) -> None:
        pl_module.continual.mask.eval_allowed.fill_(True)


def test_a_method_that_unmasks_unseen_classes():
    card = card_of(Honest(), LetsUnseenClassesThrough())
    assert failed(card) == {"unseen classes"}
    assert card["unseen classes"].violated == (0, 1)
    assert "lets 4 unseen classes through" in card["unseen classes"].message


class LikesTheLastClass(Honest):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.fc.bias[-1] = 50.0
        self.fc.requires_grad_(False)


def test_without_a_mask_an_unseen_class_must_not_win():
    for module, expected in ((LikesTheLastClass(), {"unseen classes"}), (Honest(), set())):
        guard = ProtocolGuard(probe=12, print_card=False)
        fit(module, guard)
        assert failed(guard.card) == expected
    assert "no unseen class won" in guard.card["unseen classes"].message


class WritesToTheHead(Callback):
    """Gives the head a hint of the last class, past the mask."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        with torch.no_grad():
            pl_module.fc.bias[-1] += 0.01


def test_unseen_rows_of_the_head_must_not_move():
    card = card_of(Honest(), WritesToTheHead())
    assert failed(card) == {"unseen rows"}
    assert card["unseen rows"].violated == (0, 1)
    assert '1 rows moved although `train_mask="' in card["unseen rows"].message


# ---------------------------------------------------------------------- planted: evaluations that leave traces


class CountsEvaluations(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("evaluations", torch.zeros(()))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.evaluations += 1


class Draws(Honest):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        np.random.rand()


class DropsInEvaluation(Honest):
    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.dropout(self.body(images), 0.5, training=True))


@pytest.mark.parametrize(
    ("module", "expected", "words"),
    [
        (CountsEvaluations, {"state"}, "the validation changed evaluations,"),
        (Draws, {"random numbers"}, "drew from the generator(s) of numpy,"),
    ],
)
def test_an_evaluation_that_leaves_traces(module, expected, words):
    card = card_of(module())
    assert failed(card) == expected
    (name,) = expected
    assert words in card[name].message


def test_an_evaluation_that_is_random():
    assert {"repetition", "random numbers"} <= failed(card_of(DropsInEvaluation()))
    noisy = make_stream(epochs_per_task=1, eval_transform=lambda image: torch.rand(1, IMAGE_SIZE, IMAGE_SIZE))
    assert {"repetition", "random numbers"} <= failed(card_of(Honest(), stream=noisy))


# ---------------------------------------------------------------------- planted: choosing and overlapping


def test_choosing_by_the_test_split(tmp_path):
    class Plateau(Honest):
        monitor = "val_loss"

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor}}

    def save(monitor: str | None) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / str(monitor), monitor=monitor)

    for module, callbacks, who in (
        (Honest(), [save("val_loss")], 'ModelCheckpoint(monitor="val_loss")'),
        (Honest(), [EarlyStopping("val_loss", patience=9)], 'EarlyStopping(monitor="val_loss")'),
        (Plateau(), [], 'ReduceLROnPlateau(monitor="val_loss")'),
        (Honest(), [ContinualEvaluation(report=False, print_table=False), save("class_il/average_accuracy")], "Model"),
    ):
        card = card_of(module, *callbacks)
        assert failed(card) == {"selection"}
        assert card["selection"].message.startswith(who)
        assert "val_split=0.1" in card["selection"].message
    held_out = make_stream(epochs_per_task=1, val_split=0.2)
    callbacks = [save("val_loss"), EarlyStopping("val_loss", patience=9)]
    assert failed(card_of(Plateau(), *callbacks, stream=held_out)) == set()
    Plateau.monitor = "train_loss_epoch"
    assert failed(card_of(Plateau(), save(None), save("train_loss"))) == set()


def test_training_on_evaluation_samples():
    stream = make_stream(epochs_per_task=1, val_split=0.3)
    held = stream.layout.evaluation["val"].index[0]
    first, *rest = stream.layout.train_index
    stream._layout = replace(stream.layout, train_index=(torch.cat([first, held[:3]]), *rest))
    card = card_of(Honest(), stream=stream)
    assert failed(card) == {"overlap"}
    assert card["overlap"].message.startswith("3 of ")
    assert card["overlap"].violated == ()
    assert failed(card_of(Honest(), stream=make_stream(epochs_per_task=1, val_split=0.3))) == set()


def overlapping(copied: int) -> ContinualDataModule:
    """The first images of the training split of class 0 are in the test split too."""
    train, (images, labels) = digits()
    images, labels = np.concatenate([images, train[0][:copied]]), np.concatenate([labels, train[1][:copied]])
    source = ArraySource(train, (images, labels))
    return ContinualDataModule(source, ClassIncremental(num_tasks=NUM_TASKS), batch_size=8)


@pytest.mark.parametrize(("copied", "expected"), [(13, {"duplicates"}), (1, set())])
def test_copies_of_training_images_in_the_test_split(copied, expected):
    card = card_of(Honest(), stream=overlapping(copied))
    assert failed(card) == expected
    assert card["duplicates"].numbers == {"copies": copied}
    # Whole classes: with room for class 0 alone, all of its copies are found.
    few = card_of(Honest(), stream=overlapping(copied), duplicates=20)
    assert few["duplicates"].numbers == {"copies": copied}
    assert "of 1 class(es)" in few["duplicates"].compared
    assert card_of(Honest(), stream=overlapping(copied), duplicates=0)["duplicates"].result == "not checked"


# ---------------------------------------------------------------------- the guard itself


class Recorder(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


class DropsOut(Honest):
    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.dropout(self.body(images), 0.5, self.training))


def test_a_guarded_run_ends_in_the_same_bits_and_logs_the_same(tmp_path):
    results = []
    for guards in ([], [ProtocolGuard(probe=16, print_card=False)]):
        torch.manual_seed(0)
        module, recorder = DropsOut(), Recorder()
        trainer = fit(module, FineTuning(), recorder, *guards)
        results.append((recorder.losses, module.state_dict(), trainer.callback_metrics, torch.get_rng_state()))
    plain, guarded = results
    assert plain[0] == guarded[0]
    assert all(torch.equal(value, guarded[1][name]) for name, value in plain[1].items())
    assert plain[2] == guarded[2]
    assert torch.equal(plain[3], guarded[3])


def test_the_cost_does_not_grow_with_the_tasks():
    class Counted(Honest):
        forwards = 0

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            type(self).forwards += len(batch[1])
            super().validation_step(batch, batch_idx)

    class PerTask(Callback):
        counts: list[int]

        def on_validation_end(self, *_: Any) -> None:
            self.counts = [*getattr(self, "counts", []), Counted.forwards]

    before, after, guard = PerTask(), PerTask(), ProtocolGuard(probe=6, print_card=False)
    fit(Counted(), before, guard, after)
    cost = [b - a for a, b in zip(before.counts, after.counts, strict=True)]
    assert cost == [7 * 6, 8 * 6, 8 * 6]  # reference, two sizes, order, claim, labels, again; mates from task 1 on


def test_an_online_stream():
    for module, callbacks, expected in (
        (Honest(), [], set()),
        (ReadsTheTask(), [], {"claimed task"}),
        (Honest(), [WritesToTheHead()], {"unseen rows"}),
    ):
        stream = ContinualDataModule(ArraySource(*digits()), SiBlurry(num_tasks=3), batch_size=4, updates_per_batch=2)
        assert 5 in stream.layout.new_classes[2]  # so class 5 is unseen in two tasks
        assert failed(card_of(module, *callbacks, stream=stream)) == expected


def test_violations_warn_once_or_stop_the_run():
    with pytest.warns(UserWarning, match="protocol violated after task 1, labels: the logits of") as caught:
        fit(ReadsLabels(), FineTuning(), ProtocolGuard(print_card=False), quiet=False)
    assert sum("protocol violated" in str(w.message) for w in caught) == 1
    guard = ProtocolGuard("error", print_card=False)
    with pytest.raises(ProtocolError, match="protocol violated after task 1, labels: the logits of"):
        fit(ReadsLabels(), FineTuning(), guard)
    assert guard.card["labels"].violated == (0,)


def test_the_card_is_printed_and_in_the_report(tmp_path, capsys):
    fit(ReadsLabels(), FineTuning(), ProtocolGuard(tuned_on="CUB-200"), ContinualEvaluation(), folder=tmp_path)
    printed = capsys.readouterr().out
    assert "Violated: labels" in printed
    report = read_report(tmp_path)
    card = ProtocolCard.from_dict(report.protocol)
    assert failed(card) == {"labels"}
    assert card["tuning"].message == "declared: CUB-200"
    assert any(note.startswith("protocol violated, labels: ") for note in report.notes)
    fit(Honest(), FineTuning(), ContinualEvaluation(print_table=False), folder=tmp_path)
    assert read_report(tmp_path).protocol is None


def test_a_validation_of_its_own_is_checked_too():
    guard, stream = ProtocolGuard(print_card=False), make_stream(epochs_per_task=1)
    trainer = fit(ReadsLabels(), FineTuning(), stream=stream)
    trainer.callbacks.append(guard)
    trainer.validate(trainer.lightning_module, datamodule=stream, verbose=False)
    assert failed(guard.card) == {"labels"}
    assert guard.card["unseen rows"].result == "not checked"


def test_one_task_and_few_samples():
    stream = ContinualDataModule(ArraySource(*digits()), Joint(), batch_size=40)
    card = card_of(Honest(), stream=stream)
    assert failed(card) == set()
    for name in ("batch mates", "claimed task", "unseen classes", "unseen rows"):
        assert card[name].result == "not checked"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_violation": "shout"}, '`on_violation` is \'shout\'; give "warn" or "error"'),
        ({"probe": 1}, "`probe` is 1; give a number of samples of at least 2"),
        ({"duplicates": -1}, "`duplicates` is -1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ProtocolGuard(**options)


class DataModuleWithoutTasks(LightningDataModule):
    def train_dataloader(self) -> list[Any]:
        return [(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE), torch.zeros(1, dtype=torch.long))]

    val_dataloader = train_dataloader


def test_a_guard_needs_a_validation_and_a_stream():
    with pytest.raises(ValueError, match="ProtocolGuard looks at the validation, but there is none"):
        fit(Honest(), ProtocolGuard(), limit_val_batches=0)
    with pytest.raises(ValueError, match="ProtocolGuard needs a stream, but the Trainer was given"):
        Trainer(callbacks=[ProtocolGuard()], logger=False, accelerator="cpu").fit(
            Honest(), make_stream().train_dataloader()
        )


# ---------------------------------------------------------------------- its parts


def test_the_probe_is_spread_over_tasks_and_within_them():
    parts = [torch.arange(0, 10), torch.arange(100, 103), torch.empty(0, dtype=torch.long), torch.arange(200, 300)]
    assert probe_index(parts, 7).tolist() == [0, 100, 200, 3, 101, 233, 6]
    assert probe_index(parts, 1000).tolist()[:3] == [0, 100, 200]
    assert sorted(probe_index(parts, 1000).tolist()) == sorted(torch.cat(parts).tolist())
    many = [torch.arange(t * 10, t * 10 + 10) for t in range(50)]
    chosen = probe_index(many, 4)
    assert len(chosen) == 4
    assert 490 in chosen  # the newest task
    assert len((chosen // 10).unique()) == 4


def test_batches_of_one_task_each():
    tasks = torch.tensor([0, 1, 0, 1, 1])
    assert [batch.tolist() for batch in by_task(tasks, 2)] == [[0, 2], [1, 3], [4]]


def test_others_labels_reach_every_kind_of_batch():
    mine = {"image": torch.zeros(2, 1), "label": torch.tensor([0, 1]), "more": [torch.tensor([5, 6]), "text"]}
    other = {"image": torch.ones(2, 1), "label": torch.tensor([1, 2]), "more": [torch.tensor([6, 7]), "other"]}
    mixed = with_others_labels(mine, other)
    assert mixed["image"].tolist() == [[0], [0]]
    assert (mixed["label"].tolist(), mixed["more"][0].tolist()) == ([1, 2], [6, 7])


def test_a_claim_ends_also_after_an_error():
    stream = make_stream(epochs_per_task=1)
    trainer = fit(Honest(), stream=stream)
    own, epoch = type(stream), trainer.current_epoch

    def claim_and_fail() -> None:
        with claiming(trainer, stream, 1):
            assert (stream.task_index, stream.task.index, stream.task.classes) == (1, 1, (2, 3))
            assert stream.exposed_classes == stream.task.seen_classes == tuple(range(6))
            assert trainer.current_epoch == stream.task.first_epoch
            raise KeyError

    with pytest.raises(KeyError):
        claim_and_fail()
    assert type(stream) is own
    assert trainer.current_epoch == epoch
    assert stream.task_index == 2


def test_metrics_and_unsaved_buffers_may_change():
    from torchmetrics import MeanMetric

    module = nn.Module()
    module.linear, module.metric = nn.Linear(2, 2), MeanMetric()
    module.metric.persistent(True)
    module.register_buffer("cache", torch.zeros(2), persistent=False)
    module.register_buffer("kept", torch.zeros(2))
    before = fingerprints(module)
    module.metric.update(3.0)
    module.cache += 1
    assert moved_names(before, fingerprints(module)) == []
    module.kept += 1
    module.linear.bias.data[1] += 1
    assert sorted(moved_names(before, fingerprints(module))) == ["kept", "linear.bias"]
    module.register_buffer("late", torch.zeros(1))
    assert "late" in moved_names(before, fingerprints(module))


def test_contents_are_told_apart():
    from PIL import Image

    array = np.arange(12, dtype=np.uint8).reshape(2, 6)
    same = [(array, 1), [array, 2], {"image": array}, (torch.from_numpy(array), 0), (Image.fromarray(array), 5)]
    assert len({content_digest(item) for item in same}) == 1
    assert content_digest((array.reshape(6, 2), 1)) != content_digest((array, 1))
    assert content_digest((array + 1, 1)) != content_digest((array, 1))
    assert content_digest(("path.png", 1)) is None


def test_whole_classes_first():
    train, evaluation = torch.tensor([0] * 5 + [1] * 3 + [2] * 4), torch.tensor([2, 1, 0, 1, 5])
    rows, eval_rows, classes = whole_classes(train, evaluation, 8)
    assert (rows.tolist(), eval_rows.tolist(), classes) == ([5, 6, 7, 8, 9, 10, 11], [0, 1, 3], [1, 2])
    assert whole_classes(train, evaluation, 2)[2] == [1]  # part of one class at least
