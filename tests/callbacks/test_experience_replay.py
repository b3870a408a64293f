"""Experience replay: what a step is given, what is remembered, and that it helps."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections import namedtuple
from typing import Any

import pytest
import torch
from conformance.modules import tiny_vit
from conformance.runs import assert_same_bits, in_forked_processes
from conformance.streams import NUM_CLASSES, digits
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from nn.replay.loops import ReservoirLoop, assert_same_state
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import default_collate
from torchvision.transforms import v2

from lightning_cl.callbacks import (
    CODAPrompt,
    ContinualCallback,
    ContinualEvaluation,
    DualPrompt,
    ExperienceReplay,
    FineTuning,
    PrototypeClassifier,
    VirtualOutlierRegularizer,
)
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.datamodules.scenarios.base import Scenario

pytestmark = pytest.mark.filterwarnings("ignore")
MEMORY, DRAWN, BATCH = 12, 5, 13


class Online(Scenario):
    """Three tasks of 27 samples; two classes of each are new, and one sample of every task comes in another."""

    order = "stream"

    def train_tasks(self, labels: Tensor, domains: Any, num_classes: int, seed: int) -> list[Tensor]:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(7))
        tasks = [order[labels[order] // 2 == task] for task in range(3)]
        return [torch.cat([task[1:], tasks[n - 1][:1]]) for n, task in enumerate(tasks)]


def make_stream(online: bool = True, **options: Any) -> ContinualDataModule:
    """Batches of 13, 13 and 1: of the last, a second process gets nothing."""
    train, test = digits()
    source = ArraySource(train, test, mean=(0.3,), std=(0.38,), augment=options.pop("augment", "none"))
    scenario = Online() if online else ClassIncremental(num_tasks=3, class_order=range(NUM_CLASSES))
    shape = {"updates_per_batch": 2} if online else {"epochs_per_task": 2}
    return ContinualDataModule(source, scenario, **{"batch_size": BATCH, "seed": 3, **shape, **options})


def parts(batch: Any) -> tuple[Tensor, Tensor]:
    return (batch["image"], batch["label"]) if isinstance(batch, dict) else (batch[0], batch[1])


class Net(LightningModule):
    def __init__(self, net: nn.Module | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = net or nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Dropout(dropout))
        self.fc = nn.Identity() if net else nn.Linear(24, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.net(images))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, labels = parts(batch)
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(parts(batch)[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Steps(ContinualCallback):
    """The batch of every step, what was joined to it, and the classes that had arrived."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.joined: list[Any] = []
        self.exposed: list[tuple[int, ...]] = []
        self.rows: list[Tensor] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        stream = trainer.datamodule
        self.batches.append(batch)
        self.joined.append(stream.joined)
        self.exposed.append(stream.exposed_classes)
        self.rows.append(stream.train_rows(batch_idx))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def replay(**options: Any) -> ExperienceReplay:
    return ExperienceReplay(**{"memory_size": MEMORY, "batch_size": DRAWN, **options})


def fit(
    *callbacks: Callback,
    module: LightningModule | None = None,
    stream: ContinualDataModule | None = None,
    ckpt_path: Any = None,
    dropout: float = 0.0,
    **trainer: Any,
) -> Trainer:
    seed_everything(0, verbose=False)
    fitted = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **trainer,
        },
        callbacks=list(callbacks),
    )
    fitted.fit(module or Net(dropout=dropout), datamodule=stream or make_stream(), ckpt_path=ckpt_path)
    return fitted


def result(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.lightning_module.state_dict().items()}


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
    buffer = method.replay.buffer
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


Sample = namedtuple("Sample", ["image", "label", "name"])


def as_dict(items):
    images, labels = default_collate(items)
    return {"image": images, "meta": {"name": [f"n{c}" for c in labels.tolist()]}, "label": labels}


def as_tuple(items):
    images, labels = default_collate(items)
    return Sample(images, labels, tuple(f"n{c}" for c in labels.tolist()))


def as_list(items):
    return list(default_collate(items))


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
    for stored in method.replay.buffer.read(torch.arange(MEMORY))[0]:
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


# ---------------------------------------------------------------------- processes and power cuts

KINDS = [("index", "reservoir"), ("sample", "class_balanced"), ("index", "ring")]


@pytest.mark.parametrize(("store", "policy"), KINDS)
@pytest.mark.parametrize("online", [True, False], ids=["online", "epochs"])
def test_two_processes_equal_one(store, policy, online, tmp_path):
    def run(**trainer):
        method = replay(store=store, policy=policy)
        stream = make_stream(online, augment="crop", collate_fn=as_dict)
        ended = fit(method, stream=stream, precision="64-true", **trainer)
        return ended, {"weights": result(ended), "replay": method.state_dict()}

    def rank() -> None:
        ended, left = run(strategy="ddp", devices=2)
        torch.save(left, tmp_path / f"rank{ended.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = run()[1]
    for left in (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1)):
        assert_same_state(left["replay"], expected["replay"])
        assert_close(left["weights"], expected["weights"], rtol=1e-6, atol=1e-8)


class Abort(Callback):
    """Kills the process in the first step after ``step``."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step > self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("step", [1, 4, 8, 13])  # of 27: nine batches, three updates each
@pytest.mark.parametrize(("store", "policy"), [("index", "reservoir"), ("sample", "class_balanced")])
def test_a_killed_run_goes_on_with_the_same_bits(step, store, policy, tmp_path):
    def run(*callbacks, ckpt_path=None):
        method, steps = replay(store=store, policy=policy), Steps()
        stream = make_stream(updates_per_batch=3, augment="crop")
        ended = fit(method, steps, *callbacks, stream=stream, dropout=0.3, ckpt_path=ckpt_path)
        return result(ended), method.state_dict(), steps

    def killed() -> None:
        run(Abort(step), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=step, save_top_k=-1))

    assert in_forked_processes(killed) == [-signal.SIGKILL]
    weights, memory, steps = run(ckpt_path=tmp_path / f"step={step}.ckpt")
    whole = run()
    assert_same_bits(weights, whole[0])
    assert_same_state(memory, whole[1])
    assert steps.losses == whole[2].losses[step:]


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    def run(*callbacks, **options):
        method = replay(store="sample")
        stream = make_stream(augment="crop")
        ended = fit(method, *callbacks, stream=stream, precision="64-true", **options)
        return ended, {"weights": result(ended), "replay": method.state_dict()}

    def rank() -> None:
        ended, left = run(strategy="ddp", devices=2, ckpt_path=tmp_path / "step=9.ckpt")
        torch.save(left, tmp_path / f"rank{ended.global_rank}.pt")

    expected = run(ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=9, save_top_k=-1))[1]
    assert in_forked_processes(rank, count=2) == [0, 0]
    left = torch.load(tmp_path / "rank1.pt", weights_only=True)
    assert_same_state(left["replay"], expected["replay"])
    assert_close(left["weights"], expected["weights"], rtol=1e-6, atol=1e-8)


def test_every_fit_starts_with_an_empty_memory_unless_it_continues_one():
    method = replay()
    first, second = Steps(), Steps()
    fit(method, first)
    held = method.replay.buffer.labels.clone()
    fit(method, second)
    assert [b[1].tolist() for b in first.batches] == [b[1].tolist() for b in second.batches]
    assert torch.equal(method.replay.buffer.labels, held)

    method, steps, stream = replay(), Steps(), make_stream()
    trainer = fit(method, steps, stream=stream, max_epochs=2)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(trainer.lightning_module, datamodule=stream)
    assert [b[1].tolist() for b in steps.batches] == [b[1].tolist() for b in first.batches]
    trainer.validate(trainer.lightning_module, datamodule=stream, verbose=False)
    assert torch.equal(method.replay.buffer.labels, held)


# ---------------------------------------------------------------------- with other methods


def ovor() -> VirtualOutlierRegularizer:
    return VirtualOutlierRegularizer(neighbours=10, boundary_points=10, draws=40, per_class=10)


COMPANY = {
    "coda": lambda: CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1), train_mask="task"),
    "dual": lambda: DualPrompt(2, 4, (0,), (1,), train_mask="task"),
    "fine": lambda: FineTuning(train_mask="task"),
}


@pytest.mark.parametrize("online", [True, False], ids=["online", "epochs"])
@pytest.mark.parametrize("kind", ["coda", "dual", "fine"])
def test_it_joins_other_methods_in_any_order(kind, online):
    runs = []
    for first in (True, False):
        method, steps = replay(train_mask="task"), Steps()
        company = [method, COMPANY[kind]()] if first else [COMPANY[kind](), method]
        torch.manual_seed(0)
        ended = fit(*company, steps, module=Net(tiny_vit()), stream=make_stream(online, augment="crop"))
        assert all(map(torch.isfinite, map(torch.tensor, steps.losses)))  # old classes are not masked away
        assert any(int(batch[1].min()) < 2 for batch in steps.batches[-6:])
        runs.append((result(ended), method.state_dict(), steps.losses))
    assert runs[0][2] == runs[1][2]
    assert_same_state(runs[0][1], runs[1][1])
    assert_same_state(dict(sorted(runs[0][0].items())), dict(sorted(runs[1][0].items())))


class OutlierEntropy(Callback):
    """The cross-entropy of outlier steps, and that of the joined batch with the weights before the step."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self.expected: list[Tensor] = []

    @torch.no_grad()
    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.outlier_phase == "outlier":
            self.expected.append(nn.functional.cross_entropy(pl_module(batch[0]), batch[1]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.outlier_phase == "outlier":
            self.found.append(trainer.callback_metrics["outlier/cross_entropy"])


def test_outlier_epochs_train_the_head_on_remembered_samples_too(tmp_path):
    def run(*company: Callback, **trainer: Any):
        entropy = OutlierEntropy()
        ended = fit(*company, entropy, stream=make_stream(online=False), precision="64-true", **trainer)
        return ended, result(ended), entropy

    def rank() -> None:
        ended, weights, _ = run(replay(), ovor(), strategy="ddp", devices=2)
        torch.save(weights, tmp_path / f"rank{ended.global_rank}.pt")

    _, expected, entropy = run(replay(), ovor())
    assert len(entropy.found) == 9  # one epoch of each task
    assert_close(entropy.found, entropy.expected)
    assert_close(dict(sorted(run(ovor(), replay())[1].items())), dict(sorted(expected.items())), rtol=0, atol=0)
    assert in_forked_processes(rank, count=2) == [0, 0]
    for i in (0, 1):
        assert_close(torch.load(tmp_path / f"rank{i}.pt", weights_only=True), expected, rtol=1e-6, atol=1e-8)


def test_only_classes_of_the_joined_batch_compete_under_the_batch_mask():
    class Masks(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[list[int], list[int]]] = []

        def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: Tensor) -> None:
            self.seen.append(pl_module.continual.mask.train_allowed.nonzero().flatten().tolist())

    masks, steps = Masks(), Steps()
    fit(replay(train_mask="batch"), masks, steps)
    assert masks.seen == [sorted(set(batch[1].tolist())) for batch in steps.batches]
    assert all(torch.isfinite(torch.tensor(steps.losses)))


def final_accuracy(method: Callback) -> float:
    data = load_digits()
    images, labels = torch.from_numpy(data.images / 16).float(), torch.from_numpy(data.target)
    source = ArraySource((images[:1200], labels[:1200]), (images[1200:], labels[1200:]), augment="none")
    stream = ContinualDataModule(source, ClassIncremental(num_tasks=5), batch_size=16, epochs_per_task=2)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    torch.manual_seed(0)
    module = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    fit(method, evaluation, module=module, stream=stream)
    return float(evaluation.matrix()[-1].mean())


def test_replay_keeps_what_fine_tuning_forgets():
    forgotten = final_accuracy(FineTuning(train_mask="seen", head="net.3"))
    assert forgotten < 0.35  # little more than the last two of ten classes
    for policy in ("reservoir", "class_balanced", "ring"):
        kept = final_accuracy(ExperienceReplay(200, 16, policy=policy, head="net.3"))
        assert kept > forgotten + 0.3, (policy, kept)


def test_the_report_tells_what_was_stored(tmp_path):
    evaluation = ContinualEvaluation(print_table=False)
    fit(replay(), evaluation, default_root_dir=tmp_path)
    report = json.loads((tmp_path / "continual_report.json").read_text())
    assert report["methods"]["ExperienceReplay"]["memory_size"] == MEMORY
    facts = {"stored_samples": MEMORY, "stored_bytes": 16 * MEMORY, "stored_as": "positions in the training data"}
    assert report["facts"] == {"ExperienceReplay": facts}
    method = replay(store="sample")
    fit(method)
    assert method.report_facts()["stored_bytes"] == MEMORY * (16 * 16 * 4 + 8 + 8)  # image, label, our label


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
@pytest.mark.parametrize(
    ("collate", "said"),
    [
        (cutmix, r"labels of a batch are torch.float32 of shape \(13, 6\).*CutMix"),
        (shifted, "other class ids than the stream's"),
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
