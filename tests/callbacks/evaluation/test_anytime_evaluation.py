"""Evaluations inside the fit: when they come, what they count, and that training does not notice."""

from __future__ import annotations

import csv
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from conformance.runs import in_forked_processes
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from tiny import stream_info, tiny_vit
from torch import Tensor, nn

from callbacks.anytime_runs import (
    NUM_CLASSES,
    NUM_TASKS,
    SIZES,
    TEST,
    TRAIN,
    ByHand,
    Module,
    fit,
    images,
    make_stream,
    offline,
    state,
)
from lightning_cl.callbacks import (
    AnytimeEvaluation,
    ContinualEvaluation,
    DualPrompt,
    ExperienceReplay,
    FineTuning,
    PrototypeClassifier,
)
from lightning_cl.callbacks.evaluation.anytime_counts import PrequentialCounter, next_evaluation, stratified_subset
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.datamodules import ArraySource, ClassIncremental
from lightning_cl.metrics import functional as F
from lightning_cl.metrics import read_report
from lightning_cl.nn.feature_cache import FeatureCache

pytestmark = pytest.mark.filterwarnings("ignore")
TOTAL = sum(SIZES)


def quiet(**options: Any) -> AnytimeEvaluation:
    return AnytimeEvaluation(**{"every_n_samples": 7, "report": False, **options})


# ---------------------------------------------------------------------- what is counted


@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
@pytest.mark.parametrize("method", [None, FineTuning], ids=["no method", "masked head"])
def test_every_evaluation_is_one_by_hand(online, method):
    updates = 2 if online else 1
    hand, evaluation = ByHand(7, updates, online), quiet()
    stream = make_stream(updates_per_batch=2) if online else offline()
    torch.manual_seed(0)
    module = Module()
    with torch.no_grad():
        module.head.bias[4:] += 1.5  # classes to come would win if they were let
    fit(*([] if method is None else [method()]), hand, evaluation, stream=stream, module=module)
    curve = evaluation.curve
    task_of = {c: t for t, new in enumerate(stream.layout.new_classes) for c in new}
    periodic = curve.periodic.nonzero().flatten().tolist()
    assert len(periodic) == len(hand.points) > 8
    for n, point in zip(periodic, hand.points, strict=True):
        assert curve.samples_seen[n] == point["seen"]
        assert curve.task[n] == point["task"]
        assert curve.exposed[n] == point["exposed"]
        assert curve.class_correct[n].tolist() == point["correct"]
        assert curve.class_total[n].tolist() == point["total"]
        for t in range(NUM_TASKS):
            of_task = [c for c in range(NUM_CLASSES) if task_of[c] == t]
            assert curve.correct[n, t] == sum(point["correct"][c] for c in of_task)
            assert curve.total[n, t] == sum(point["total"][c] for c in of_task)
    accuracies = [sum(p["correct"]) / sum(p["total"]) for p in hand.points]
    assert len(set(accuracies)) > 4  # the module learns, so that a wrong moment would show
    assert curve.a_auc().item() == pytest.approx(sum(accuracies) / len(accuracies))


def test_after_a_task_the_whole_validation_is_counted_once():
    class AtTheEnd(ByHand):
        def on_task_end(self, trainer, pl_module, task):
            self.ends = [*getattr(self, "ends", []), self.evaluate(pl_module, task.index)]

    hand, evaluation, continual = AtTheEnd(7), quiet(subset=12), ContinualEvaluation(report=False, print_table=False)
    stream = make_stream()
    # The driver tells the end of a task before the other callbacks count its last batch.
    fit(hand, evaluation, continual, stream=stream)
    assert evaluation.curve.after_class_correct.tolist() == [end["correct"] for end in hand.ends]
    assert evaluation.curve.after_class_total.tolist() == [end["total"] for end in hand.ends]
    assert torch.equal(evaluation.curve.after_correct, continual.correct["class_il"])
    values = evaluation.curve.summary()
    after = [sum(end["correct"]) / sum(end["total"]) for end in hand.ends]
    assert values["a_avg"] == pytest.approx(sum(after) / 3)
    assert values["a_last"] == pytest.approx(after[-1])
    rows = [zip(end["correct"], end["total"], strict=True) for end in hand.ends]
    classes = torch.tensor([[right / count if count else 0.0 for right, count in row] for row in rows])
    best = classes[:-1].amax(0)
    assert values["f_last"] == pytest.approx((best - classes[-1])[best > 0].mean().item())


def test_the_points_of_a_published_run():
    seen, due, points = 0, 1000, []
    for batch in [64] * 781 + [16]:  # 50,000 samples
        seen += batch
        if seen >= due:
            points.append(seen)
            due = next_evaluation(seen, due, 1000)
    assert len(points) == 50
    assert points[0] == 1024
    assert points[-1] == 50_000
    assert next_evaluation(25, 7, 7) == 28  # a batch larger than the period gives one evaluation
    assert next_evaluation(28, 28, 7) == 35


def test_task_ends_are_evaluations_but_not_part_of_the_area():
    evaluation = quiet(every_n_samples=25)  # due at the end of the first task, and then after every fifth batch
    fit(evaluation)
    curve = evaluation.curve
    assert curve.task_ends == [25, 39, 66]
    assert curve.samples_seen.tolist() == [25, 39, 54, 66]
    assert curve.periodic.tolist() == [True, False, True, False]
    assert curve.task_end.tolist() == [True, True, False, True]
    assert curve.a_auc().item() == pytest.approx(curve.accuracy[[0, 2]].mean().item())
    assert evaluation.curve.summary()["average_anytime_accuracy"] == pytest.approx(
        F.average_anytime_accuracy(curve.trace).item()
    )


class Oracle(Module):
    """Reads the answer off the image, and whether to give it or another one."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(NUM_CLASSES, NUM_CLASSES, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        label, sign = (255 * x[:, 0, 0, 0]).round().long(), 2 * x[:, 0, 0, 1] - 1
        return self.head(nn.functional.one_hot(label, NUM_CLASSES) * sign[:, None])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum((p * 0).sum() for p in self.parameters())


@pytest.mark.parametrize("online", [True, False])
def test_a_model_of_constant_accuracy(online):
    def told(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(NUM_CLASSES), count)
        pixels = np.zeros((len(labels), 8, 8), dtype=np.uint8)
        pixels[:, 0, 0], pixels[:, 0, 1] = labels, np.where(np.arange(len(labels)) % count < count - 2, 255, 0)
        return pixels, labels

    evaluation = quiet(every_n_samples=15)
    source = ArraySource(told(TRAIN), told(TEST), augment="none")
    fit(evaluation, module=Oracle(), stream=make_stream(source=source) if online else offline(source=source))
    values = evaluation.curve.summary()
    for name in ("a_auc", "average_anytime_accuracy", "a_avg", "a_last", "min_acc", "wc_acc", "learning_curve_area"):
        assert values[name] == pytest.approx((TEST - 2) / TEST), name
    for name in ("f_last", "windowed_forgetting_10", "windowed_plasticity_100"):
        assert values[name] == pytest.approx(0), name


# ---------------------------------------------------------------------- a subset


def test_a_subset_is_fixed_stratified_and_bounds_the_cost():
    evaluation = quiet(subset=10)
    fit(evaluation)
    totals = evaluation.curve.class_total
    full = totals[-1]
    assert full.sum() == 10
    assert sorted(full.tolist()) == [1, 1, 2, 2, 2, 2]
    for row in totals:  # the same samples at every evaluation, task ends too, as far as their class is exposed
        assert torch.equal(row[row > 0], full[row > 0])
    assert evaluation.curve.after_class_total[-1].tolist() == [TEST] * NUM_CLASSES
    again = quiet(subset=10)
    fit(again)
    assert torch.equal(again._chosen, evaluation._chosen)
    other = quiet(subset=10)
    fit(other, stream=make_stream(seed=1))
    assert not torch.equal(other._chosen, evaluation._chosen)
    everything = quiet(subset=10_000)
    fit(everything)
    assert everything.curve.class_total[-1].tolist() == [TEST] * NUM_CLASSES


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 60), st.integers(0, 3))
def test_a_subset_holds_every_class_in_proportion(counts, extra, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    index = torch.arange(len(labels))
    size = len(counts) + extra
    chosen = stratified_subset(labels, index, size, seed)
    assert len(chosen) == len(chosen.unique()) == min(size, len(labels))
    assert torch.equal(chosen, stratified_subset(labels, index.flip(0), size, seed))  # whatever the order
    drawn = torch.bincount(labels[chosen], minlength=len(counts))
    assert drawn.min() >= 1
    assert bool((drawn <= torch.tensor(counts)).all())
    more = torch.tensor(counts)
    for a in range(len(counts)):  # a larger class never gives fewer
        assert bool((drawn[more > more[a]] >= drawn[a]).all())


# ---------------------------------------------------------------------- before learning


METHODS = {
    "no method": list,
    "all": lambda: [FineTuning(train_mask="all")],
    "seen": lambda: [FineTuning(train_mask="seen")],
    "batch": lambda: [FineTuning(train_mask="batch")],
    "replay": lambda: [replay()],
}


def replay() -> ExperienceReplay:
    return ExperienceReplay(memory_size=9, batch_size=4)


@pytest.mark.parametrize(("methods", "updates"), [*((name, 1) for name in METHODS), ("batch", 3), ("replay", 3)])
def test_prequential_accuracy_counts_new_samples_before_they_are_learned(updates, methods):
    hand, evaluation = ByHand(7, updates), quiet(prequential=True)
    methods = METHODS[methods]()
    fit(*methods, hand, evaluation, stream=make_stream(updates_per_batch=updates))
    right, count = (sum(column) for column in zip(*hand.predicted, strict=True))
    assert (evaluation.curve.online_correct[-1], evaluation.curve.online_total[-1]) == (right, TOTAL)
    assert count == TOTAL
    assert evaluation.curve.summary()["prequential_accuracy"] == pytest.approx(right / TOTAL)
    assert 0 < right < TOTAL
    seen = evaluation.curve.samples_seen
    assert torch.equal(evaluation.curve.online_total, seen)


def test_what_was_trained_on_in_an_earlier_epoch_is_not_new():
    hand, evaluation = ByHand(7, online=False), quiet(prequential=True)
    fit(hand, evaluation, stream=offline())
    per_task = 2 * TRAIN
    epochs = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]  # task, epoch of the task; batches of 5, 5, 5, 5 and 2
    batches = [batch for batch in epochs for _ in range(5)]
    first = [pair for pair, (_, epoch) in zip(hand.predicted, batches, strict=True) if epoch == 0]
    assert evaluation.curve.samples_seen[-1] == 5 * per_task
    assert evaluation.curve.online_total[-1] == TOTAL == sum(count for _, count in first)
    assert evaluation.curve.online_correct[-1] == sum(right for right, _ in first)


def test_rows_behind_the_batch_and_later_answers_do_not_count():
    module = Module()
    counter = PrequentialCounter(HeadCapture(module, NUM_CLASSES), torch.device("cpu"), stream_info(2, NUM_CLASSES))
    with torch.no_grad():
        module.head.weight.zero_(), module.head.bias.copy_(torch.tensor([0.0, 3, 0, 2, 0, 9]))
    batch = torch.zeros(4, 1, 8, 8), torch.tensor([1, 3, 0, 0])
    counter.watch()
    module(batch[0]), module(torch.zeros(9, 1, 8, 8))
    counter.count(torch.tensor([1, 3]), (1, 3), batch)  # two rows of the stream, then two that were replayed
    assert counter.take().tolist() == [1, 2]
    counter.watch()
    module(torch.zeros(1, 1, 8, 8))
    counter.count(torch.tensor([], dtype=torch.long), (1, 3), batch)  # a process that only repeats a row
    assert counter.take().tolist() == [0, 0]
    assert not module.head._forward_hooks


def test_rows_of_a_training_step_that_sorts_are_found_again():
    module, images = Module(), torch.randn(5, 1, 8, 8)
    counter = PrequentialCounter(HeadCapture(module, NUM_CLASSES), torch.device("cpu"), stream_info(2, NUM_CLASSES))
    chosen = module(images).detach().argmax(1)
    wrong = (chosen[:3] + 1) % NUM_CLASSES
    rows = torch.tensor([3, 1, 4, 0, 2])
    for labels, right in ((chosen[:3], 3), (wrong, 0)):
        counter.watch()
        module(images[rows])
        counter.count(labels, tuple(range(NUM_CLASSES)), (images, torch.zeros(5)))  # three of the stream, two replayed
        assert counter.take().tolist() == [right, 3]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_without_it_nothing_is_said_about_it():
    evaluation = quiet()
    fit(evaluation)
    assert "prequential_accuracy" not in evaluation.curve.summary()
    assert "prequential_accuracy" not in evaluation.section(make_stream())["curve"]


def test_a_step_that_does_not_use_the_head():
    class Headless(Module):
        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).sum() + 0 * self.head.weight.sum()

    with pytest.raises(RuntimeError, match="was not called in a training step"):
        fit(quiet(prequential=True), module=Headless())


# ---------------------------------------------------------------------- training does not notice


@pytest.mark.parametrize(
    ("method", "workers"), [(FineTuning, 0), (replay, 0), pytest.param(FineTuning, 1, marks=pytest.mark.slow)]
)
def test_training_ends_in_the_same_bits(method, workers):
    def end(*callbacks: Callback) -> Any:
        module, trainer = fit(method(), *callbacks, stream=make_stream(num_workers=workers), dropout=0.3)
        draws = torch.rand(3), random.random(), np.random.rand()
        metrics = {k: v for k, v in trainer.callback_metrics.items() if "anytime" not in k}
        return module.state_dict(), metrics, draws, trainer.optimizers[0].state_dict()["state"]

    plain, watched = end(), end(quiet(prequential=True))
    assert plain[0].keys() == watched[0].keys()
    assert all(torch.equal(watched[0][name], value) for name, value in plain[0].items())
    assert watched[1] == plain[1]
    assert torch.equal(watched[2][0], plain[2][0])
    assert watched[2][1:] == plain[2][1:]
    assert str(watched[3]) == str(plain[3])


def test_a_module_that_asks_for_its_batch_gets_the_one_it_is_given():
    asked: list[tuple[list[int], list[int]]] = []

    class Asking(Module):  # as ImageClassifier does, to leave out padding
        def validation_step(self, batch, batch_idx):
            asked.append((self.trainer.datamodule.eval_batch(batch_idx, "val").labels.tolist(), batch[1].tolist()))
            super().validation_step(batch, batch_idx)

    fit(quiet(subset=20), module=Asking(), stream=make_stream(eval_batch_size=4))
    assert len(asked) > 20
    assert all(told == given for told, given in asked)


def test_the_head_is_left_alone():
    module, _ = fit(quiet(prequential=True))
    assert not module.head._forward_hooks


@pytest.mark.parametrize("method", [DualPrompt, PrototypeClassifier])
def test_every_image_goes_through_a_frozen_backbone_once(method, monkeypatch):
    class Vit(Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_vit(img_size=8, in_chans=1, patch_size=4, num_classes=0, depth=2).float()
            self.head = nn.Linear(48, NUM_CLASSES)

    remembered: list[int] = []
    remember = FeatureCache.remember

    def note(cache, features, prints, chosen=None):
        remembered.extend(cache.expected[1][slice(None) if chosen is None else chosen].tolist())
        remember(cache, features, prints, chosen)

    monkeypatch.setattr(FeatureCache, "remember", note)
    small = {"general_length": 2, "expert_length": 2, "general_layers": (0,), "expert_layers": (1,)}
    evaluation = quiet()
    fit(method(**(small if method is DualPrompt else {})), evaluation, module=Vit())
    assert len(evaluation.curve) > 8
    assert sorted(remembered) == list(range(TEST * NUM_CLASSES))


# ---------------------------------------------------------------------- resuming, processes


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise ConnectionAbortedError("the power is gone")


@pytest.mark.parametrize("step", [7, 10, 17], ids=["mid-batch", "task's end", "mid-task"])
def test_resume_is_invisible(tmp_path, step):
    def run(folder, *more, **options):
        evaluation = quiet(prequential=True, subset=20)
        module, _ = fit(
            FineTuning(),
            evaluation,
            *more,
            stream=make_stream(updates_per_batch=2),
            dropout=0.3,
            folder=folder,
            **options,
        )
        return state(evaluation), module.state_dict()

    whole, weights = run(tmp_path / "whole")
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(ConnectionAbortedError):
        run(tmp_path, saving, Stop(step + 1))
    path = tmp_path / f"step={step}.ckpt"
    saved = torch.load(path, weights_only=True)["callbacks"]["lightning_cl.AnytimeEvaluation"]
    assert saved["version"] == 1
    assert 0 < len(saved["curve"]["samples_seen"]) < len(whole["samples_seen"])
    curve, resumed = run(tmp_path, ckpt_path=path)
    assert curve == whole
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())


def test_the_curve_goes_on_when_the_stream_is_extended(tmp_path):
    def run(extended: bool, **options: Any) -> AnytimeEvaluation:
        stream, module, evaluation = offline(), Module(outputs=NUM_CLASSES + 2), quiet(head="head")
        if extended:
            pixels, labels = images(TRAIN, 2)
            more = [(part[labels < 2], labels[labels < 2]) for part in (pixels, pixels)]
            source = ArraySource(*more, class_names=["x", "y"], augment="none", mean=(0.4,), std=(0.25,))
            stream.extend(source, ClassIncremental(num_tasks=1), epochs_per_task=2)
        saving = ModelCheckpoint(tmp_path, "last", save_top_k=1)
        fit(FineTuning(head="head"), evaluation, saving, stream=stream, module=module, folder=tmp_path, **options)
        return evaluation

    before = run(extended=False).curve
    after = run(extended=True, ckpt_path=tmp_path / "last.ckpt").curve
    count = len(before)
    assert len(after) > count
    assert torch.equal(after.correct[:count, :NUM_TASKS], before.correct)
    assert torch.equal(after.samples_seen[:count], before.samples_seen)
    assert torch.equal(after.after_correct[:NUM_TASKS, :NUM_TASKS], before.after_correct)
    assert after.class_total[-1].tolist() == [TEST] * NUM_CLASSES + [TRAIN] * 2
    assert after.task_ends[-1] == after.samples_seen[-1] == before.samples_seen[-1] + 2 * 2 * TRAIN  # two epochs


@pytest.mark.parametrize(
    ("method", "batch_size"),
    [(FineTuning, 5), (replay, 1), pytest.param(FineTuning, 1, marks=pytest.mark.slow)],
    ids=["uneven shares", "one process only replays", "one process only repeats"],
)
def test_two_processes_make_the_curve_of_one(tmp_path, method, batch_size):
    def run(**options: Any) -> dict[str, Any]:
        evaluation = quiet(prequential=True, every_n_samples=13, subset=23)
        saving = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=4, save_top_k=-1)
        stream = make_stream(batch_size=batch_size, eval_batch_size=9)
        _, trainer = fit(method(), evaluation, saving, stream=stream, folder=tmp_path, **options)
        saved = evaluation.state_dict()
        return {"rank": trainer.global_rank, "curve": state(evaluation), "online": saved["online"]}

    def rank() -> None:
        result = run(devices=2, strategy="ddp", precision="64-true")
        (tmp_path / f"rank{result['rank']}.json").write_text(json.dumps(result))

    assert in_forked_processes(rank, count=2) == [0, 0]
    at_step = torch.load(tmp_path / "saved/step=8.ckpt", weights_only=True)["callbacks"][AnytimeEvaluation.state_key]
    alone = run(precision="64-true")
    for index in (0, 1):
        result = json.loads((tmp_path / f"rank{index}.json").read_text())
        assert result["curve"] == alone["curve"]
        assert result["online"] == alone["online"]
    seen = {5: 25 + 14, 1: 8}[batch_size]
    assert at_step["online"][1] == at_step["samples_seen"] == seen  # of both, not of the one that saves


# ---------------------------------------------------------------------- logs and report


class Recorder(Logger):
    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


def test_every_evaluation_is_logged_whatever_the_interval():
    logger, evaluation = Recorder(), quiet(prequential=True)
    _, trainer = fit(evaluation, logger=logger, log_every_n_steps=1000)
    rows = [(step, row) for step, row in logger.rows if "anytime/accuracy" in row]
    curve = evaluation.curve
    assert [row["anytime/samples_seen"] for _, row in rows] == curve.samples_seen[curve.periodic].tolist()
    assert [row["anytime/accuracy"] for _, row in rows] == pytest.approx(curve.accuracy[curve.periodic].tolist())
    assert rows[-1][1]["anytime/a_auc"] == pytest.approx(curve.a_auc().item())
    assert rows[-1][1]["anytime/exposed_classes"] == NUM_CLASSES
    assert [step for step, _ in rows] == sorted({step for step, _ in rows})
    assert trainer.callback_metrics["anytime/accuracy"] == pytest.approx(rows[-1][1]["anytime/accuracy"])
    assert trainer.callback_metrics["anytime/a_last"] == pytest.approx(curve.summary()["a_last"])


@pytest.mark.pictures
@pytest.mark.parametrize("together", [True, False], ids=["with ContinualEvaluation", "alone"])
def test_the_report_has_the_curve(tmp_path, together):
    evaluation = AnytimeEvaluation(every_n_samples=7, prequential=True, windows=(2, 5))
    others = [ContinualEvaluation(print_table=False)] if together else []
    fit(*others, evaluation, stream=make_stream(updates_per_batch=2), folder=tmp_path)
    report, curve = read_report(tmp_path), evaluation.curve
    section = report.anytime
    assert section["curve"]["samples_seen"] == curve.samples_seen.tolist()
    assert section["curve"]["accuracy"] == pytest.approx(curve.accuracy.tolist())
    assert section["task_accuracy"][0][1:] == [None, None]
    assert section["metrics"] == pytest.approx(curve.summary((2, 5)))
    assert {"windowed_forgetting_2", "windowed_plasticity_5", "prequential_accuracy"} < section["metrics"].keys()
    assert section["definitions"].keys() >= {"a_auc", "windowed_forgetting"}
    assert section["metadata"]["updates_per_batch"] == 2
    assert section["metadata"]["every_n_samples"] == 7
    assert report.samples_seen == list(SIZES)
    assert torch.equal(report.evaluated, curve.after_total)
    assert (tmp_path / "anytime_curve.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "anytime_curve.csv").open() as stream:
        header, *rows = csv.reader(stream)
    assert header[:3] == ["samples_seen", "accuracy", "exposed_classes"]
    assert header[-NUM_TASKS:] == ["task_0", "task_1", "task_2"]
    assert [float(row[1]) for row in rows] == curve.accuracy.tolist()
    assert rows[0][-2:] == ["", ""]
    assert len(list(tmp_path.glob("continual_report*.json"))) == 1


def test_what_was_measured_is_written_when_the_run_breaks(tmp_path):
    with pytest.raises(ConnectionAbortedError):
        fit(AnytimeEvaluation(every_n_samples=5), Stop(4), folder=tmp_path)
    report = read_report(tmp_path)
    assert report.anytime["curve"]["samples_seen"] == [5, 10, 15, 20]
    assert report.notes[-1] == "the run was interrupted (ConnectionAbortedError)"


def test_a_fast_run_leaves_no_report(tmp_path):
    fit(AnytimeEvaluation(every_n_samples=5), folder=tmp_path, fast_dev_run=True)
    assert not list(tmp_path.glob("*report*"))


# ---------------------------------------------------------------------- wrong input


def test_wrong_input():
    with pytest.raises(ValueError, match="`every_n_samples` is 0"):
        AnytimeEvaluation(every_n_samples=0)
    with pytest.raises(ValueError, match=r"`windows` is \[10, 1\]"):
        AnytimeEvaluation(windows=(10, 1))
    with pytest.raises(ValueError, match="`subset` is 5 but the evaluation data have 6 classes"):
        fit(quiet(subset=5))


def test_no_stream_and_no_validation():
    class Blind(Module):
        validation_step = LightningModule.validation_step

    with pytest.raises(ValueError, match="AnytimeEvaluation needs a stream, but the Trainer was given plain dataload"):
        Trainer(callbacks=[quiet()], logger=False, accelerator="cpu").fit(
            Module(), torch.utils.data.DataLoader([(torch.zeros(1, 8, 8), 0)]), None
        )
    with pytest.raises(ValueError, match="give the module a `validation_step`"):
        fit(quiet(), module=Blind())
    with pytest.raises(ValueError, match="does not validate the last epoch of"):
        fit(quiet(), stream=offline(), check_val_every_n_epoch=2)
    assert TRAIN * NUM_CLASSES == TOTAL
