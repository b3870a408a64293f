"""Tasks of another source behind those that were learned: nothing old changes, and a run goes on as if it had known."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conformance.methods import METHODS as ALL_METHODS
from conformance.methods import make
from conformance.modules import FAMILIES, CLIPProbe, PlainModule, tiny_vit
from conformance.runs import assert_same_bits, in_forked_processes
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.testing import assert_close

import lightning_cl
from lightning_cl.callbacks import (
    L2P,
    TEEN,
    CODAPrompt,
    ContinualCheckpoint,
    ContinualEvaluation,
    DualPrompt,
    ExperienceReplay,
    FineTuning,
    OnePrompt,
    PrototypeClassifier,
    VirtualOutlierRegularizer,
)
from lightning_cl.callbacks.evaluation.task_counts import grown
from lightning_cl.datamodules import (
    ArraySource,
    ClassIncremental,
    ContinualDataModule,
    DatasetSource,
    Joint,
    StreamInfo,
)
from lightning_cl.datamodules.extension import plan_epochs
from lightning_cl.datamodules.sources.extended import match_classes
from lightning_cl.datamodules.stream_identity import difference, is_prefix
from lightning_cl.training.state_growth import fits_into, grow_optimizer_state, grow_state, with_old_values

pytestmark = pytest.mark.filterwarnings("ignore")
PER_CLASS = 9


@cache
def digits(classes: tuple[int, ...]) -> ArraySource:
    """Nine training and five test images of some digits, labelled from 0 and named after the digit."""
    data = load_digits()
    images = np.kron(data.images * (255 / 16), np.ones((1, 2, 2))).round().astype(np.uint8)
    train, test = [], []
    for digit in classes:
        members = np.flatnonzero(data.target == digit)
        train.append(members[:PER_CLASS])
        test.append(members[PER_CLASS : PER_CLASS + 5])
    splits = [(images[np.concatenate(p)], np.repeat(np.arange(len(classes)), len(p[0]))) for p in (train, test)]
    return ArraySource(*splits, class_names=[str(d) for d in classes], mean=(0.3,), std=(0.38,), augment="crop")


def short_stream(**options: Any) -> ContinualDataModule:
    """Tasks {0, 1} and {2, 3}, the first with two epochs."""
    scenario = ClassIncremental(num_tasks=2, class_order=range(4))
    return ContinualDataModule(digits((0, 1, 2, 3)), scenario, **{"batch_size": 6, "epochs_per_task": 1, **options})


def long_stream(**options: Any) -> ContinualDataModule:
    """The same, and the digits 4 to 7 in two more tasks."""
    stream = short_stream(**options)
    stream.extend(digits((4, 5, 6, 7)), ClassIncremental(num_tasks=2, class_order=range(4)))
    return stream


# ---------------------------------------------------------------------- the stream


def test_what_was_there_stays():
    short, long = short_stream(), long_stream()
    assert long.info.num_tasks == 4
    assert long.info.class_names == tuple("01234567")
    assert long.info.classes_per_task == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert long.layout.new_classes == long.info.classes_per_task
    for task in range(2):
        assert torch.equal(long.layout.train_index[task], short.layout.train_index[task])
        assert torch.equal(long.layout.evaluation["test"].index[task], short.layout.evaluation["test"].index[task])
        assert long.task_at(task) == short.task_at(task)
    rows = len(short.table())
    for column in ("sample", "task", "position", "label"):
        assert torch.equal(getattr(long.table(), column)[:rows], getattr(short.table(), column))


@pytest.mark.parametrize("val_split", [0.0, 0.3])
def test_positions_lead_to_the_images_and_labels_of_their_task(val_split):
    stream, parts = long_stream(val_split=val_split), [digits((0, 1, 2, 3)), digits((4, 5, 6, 7))]
    everything = []
    for stage, split in (("train", "train"), ("val", "train" if val_split else "test"), ("test", "test")):
        index = stream.layout.train_index if stage == "train" else stream.layout.evaluation[stage].index
        everything.append(torch.cat(index) if split == "train" else torch.empty(0, dtype=torch.long))
        for task, members in enumerate(index):
            for position in members.tolist():
                image, label = stream.source.item(split, position)
                part = parts[task // 2]
                own = position - (0 if task < 2 else len(getattr(parts[0], f"{split}_labels")))
                expected, number = part.item(split, own)
                assert torch.equal(image, expected)
                assert label == number + (0 if task < 2 else 4)
                assert label in stream.info.classes_per_task[task]
                assert int(getattr(stream.source, f"{split}_labels")[position]) == label
                if stage != "train":
                    batch = stream.layout.evaluation[stage].batch(torch.tensor([position]))
                    assert (int(batch.labels), int(batch.tasks)) == (label, task)
    assert sorted(torch.cat(everything).tolist()) == list(range(8 * PER_CLASS))


def test_every_image_gets_the_transform_of_its_source():
    stream = short_stream()
    source = digits((4, 5, 6, 7))
    other = ArraySource(source._given["train"], source._given["test"], mean=(0.9,), std=(0.1,))
    stream.extend(other, ClassIncremental(2))
    stream.setup()
    for split, labels in (("train", stream.source.train_labels), ("test", stream.source.test_labels)):
        dataset = stream._dataset(split, "eval")
        for position, part in ((0, stream.source.parts[0]), (len(labels) - 1, other)):
            own = 0 if position == 0 else len(getattr(other, f"{split}_labels")) - 1
            expected = part.eval_transform()(part.item(split, own)[0])
            assert torch.equal(dataset[(position, None)][0][0], expected)
    replaced = short_stream(eval_transform=lambda image: torch.zeros(1))
    replaced.extend(other, ClassIncremental(2))
    replaced.setup()
    assert torch.equal(replaced._dataset("test", "eval")[(39, None)][0], torch.zeros(1, 1))


def test_classes_are_matched_by_name():
    stream = short_stream()
    stream.extend(
        digits((3, 8, 1, 9)), ClassIncremental(classes_per_task=[2, 2], class_order=range(4)), classes="by_name"
    )
    info = stream.info
    assert info.class_names == ("0", "1", "2", "3", "8", "9")
    assert info.classes_per_task == ((0, 1), (2, 3), (3, 4), (1, 5))
    assert stream.layout.new_classes == ((0, 1), (2, 3), (4,), (5,))
    old, new = short_stream().layout.evaluation["test"], stream.layout.evaluation["test"]
    assert all(torch.equal(a, b) for a, b in zip(old.index, new.index, strict=False))  # tasks keep their evaluation
    assert stream.source.item("train", 4 * PER_CLASS)[1] == 3


@given(st.lists(st.sampled_from("abcde"), unique=True, min_size=1), st.lists(st.sampled_from("abcdef"), unique=True))
def test_matching_classes(known, names):
    ids, everything = match_classes(known, names, "new")
    assert ids == list(range(len(known), len(known) + len(names)))
    assert everything[: len(known)] == known
    assert len(set(everything)) == len(everything) == len(known) + len(names)
    ids, everything = match_classes(known, names, "by_name")
    assert [everything[i] for i in ids] == names
    assert everything == known + [name for name in names if name not in known]


def test_dictionaries_are_relabelled_and_other_items_refused():
    class Items(torch.utils.data.Dataset):
        def __init__(self, make):
            self.make, self.targets = make, [0, 1, 0, 1]

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.make(index, self.targets[index])

    def added(make):
        stream = short_stream()
        stream.extend(DatasetSource(Items(make), Items(make)), ClassIncremental(1))
        assert stream.info.num_classes == 6
        return stream.source.item("test", 21)

    assert added(lambda i, y: {"image": i, "label": torch.tensor(y)}) == {"image": 1, "label": torch.tensor(5)}
    assert added(lambda i, y: [i, y, "more"]) == [1, 5, "more"]
    with pytest.raises(ValueError, match="was not found in a dict; give items"):
        added(lambda i, y: {"image": i, "answer": y})


def test_a_stream_can_be_extended_more_than_once():
    long = long_stream()
    longer = long_stream()
    longer.extend(digits((8, 9)), ClassIncremental(1), epochs_per_task=3)
    assert longer.info.extended_from == (*long.info.extended_from, (4, long.info.fingerprint))
    assert is_prefix(short_stream().info, longer.info)
    assert is_prefix(long.info, longer.info)
    assert not is_prefix(longer.info, long.info)
    assert longer.info.planned_tasks == 2
    assert longer.schedule.epochs == (1, 1, 1, 1, 3)
    back = StreamInfo.from_state_dict(longer.info.state_dict())
    assert back == longer.info


def test_another_order_or_source_is_no_prefix():
    info = long_stream().info
    others = [
        ContinualDataModule(digits((0, 1, 2, 3)), ClassIncremental(2, class_order=[1, 0, 2, 3])),
        ContinualDataModule(digits((0, 1, 2, 3)), ClassIncremental(1)),
        ContinualDataModule(digits((0, 1, 2, 4)), ClassIncremental(2, class_order=range(4))),
        short_stream(val_split=0.3),
    ]
    # [1, 0, 2, 3] has the same classes in its tasks and the same samples
    assert [is_prefix(stream.info, info) for stream in others] == [True, False, False, False]
    other = long_stream()
    other.extend(digits((8,)), ClassIncremental(1))
    renamed = StreamInfo(2, 4, ("0", "1", "two", "3"), info.classes_per_task[:2], short_stream().info.fingerprint)
    assert not is_prefix(renamed, info)
    assert len({info.fingerprint, other.info.fingerprint, *(s.info.fingerprint for s in others)}) == 6


def test_epochs_of_the_added_tasks():
    info = long_stream().info
    assert plan_epochs(2, [None], info).epochs == (2, 2, 2, 2)
    assert plan_epochs([1, 2], [3], info).epochs == (1, 2, 3, 3)
    assert plan_epochs(2, [[3, 4]], info).epochs == (2, 2, 3, 4)
    with pytest.raises(ValueError, match="says nothing about the 2 added tasks"):
        plan_epochs([1, 2], [None], info)
    with pytest.raises(ValueError, match="has 3 entries but the stream has 2 tasks"):
        plan_epochs([1, 2], [[1, 2, 3]], info)


def test_a_schedule_that_was_shortened_is_kept():
    short = short_stream(epochs_per_task=3)
    short.shorten(0, 2)
    long = long_stream(epochs_per_task=3)
    long.load_state_dict(short.state_dict())
    assert long.schedule.epochs == (2, 3, 3, 3)
    short.extend(digits((4, 5)), ClassIncremental(1), epochs_per_task=5)  # after a fit
    assert short.schedule.epochs == (2, 3, 5)


def test_what_cannot_be_extended():
    source, scenario = digits((4, 5)), ClassIncremental(1)
    table = short_stream().table().as_scenario()
    for stream in (ContinualDataModule(digits((0, 1)), Joint()), ContinualDataModule(digits((0, 1, 2, 3)), table)):
        with pytest.raises(ValueError, match=r"(Joint|TableScenario) is not `ClassIncremental`"):
            stream.extend(source, scenario)
    with pytest.raises(ValueError, match="Joint is not `ClassIncremental`"):
        short_stream().extend(source, Joint())
    with pytest.raises(ValueError, match='`classes` is \'same\'; give "new" or "by_name"'):
        short_stream().extend(source, scenario, classes="same")
    small = short_stream()
    small.extend(ArraySource((np.zeros((2, 8, 8)), [0, 1]), (np.zeros((2, 8, 8)), [0, 1])), scenario)
    with pytest.raises(ValueError, match=r"images of different sizes \(16, 8\)"):
        small.setup()
    with pytest.raises(ValueError, match="several classes of the names"):
        match_classes(["a"], ["b", "b"], "by_name")


# ---------------------------------------------------------------------- rows


def test_new_rows_stand_behind_the_old_ones():
    saved, fresh = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]])
    assert with_old_values(saved, fresh).tolist() == [[1.0], [2.0], [5.0]]
    assert with_old_values(saved, torch.zeros(2, 2)).tolist() == [[1.0, 0.0], [2.0, 0.0]]
    assert fits_into(saved, torch.zeros(2, 2))
    assert not fits_into(saved, torch.zeros(3))
    assert not fits_into(saved, torch.zeros(1, 5))
    matrix = torch.tensor([[1, 0], [2, 3]])
    assert grown(matrix, 3).tolist() == [[1, 0, 0], [2, 3, 0], [0, 0, 0]]
    assert grown(matrix, 0).equal(matrix)
    assert grown(torch.tensor([0.5]), 2, float("nan"))[0] == 0.5
    assert grown(torch.tensor([0.5]), 2, float("nan"))[1].isnan()


@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), torch.optim.Adafactor]
)
def test_optimiser_state_of_new_rows_is_zero(kind):
    def stepped(outputs, stream):
        model = Model(outputs)
        FineTuning().attach_once(model, stream.info)
        optimizer = kind(model.parameters())
        sum(p.square().sum() for p in model.parameters()).backward()
        optimizer.step()
        return model, optimizer

    (short, small), (long, large) = stepped(4, short_stream()), stepped(8, long_stream())
    grow_state(long, short.state_dict())
    assert set(long.continual.grown) >= set(HEAD)
    large.load_state_dict(small.state_dict())
    grow_optimizer_state(long, large)
    for (name, old), new in zip(short.named_parameters(), long.parameters(), strict=True):
        for key, value in small.state[old].items():
            now = large.state[new][key]
            if value.shape == old.shape and name in HEAD:
                assert torch.equal(now[:4], value)
                assert now[4:].eq(0).all()
                assert now.shape == new.shape
            else:
                assert torch.equal(now, value), (name, key)
    if kind is not torch.optim.Adafactor:  # which factors its state by rows and columns
        large.step()


@pytest.mark.parametrize("method", ALL_METHODS, ids=lambda m: m.__name__)
def test_every_method_says_what_grows(method):
    short, long = model_for(method, 4), model_for(method, 8)
    for model, stream in ((short, short_stream()), (long, long_stream())):
        make(method).attach_once(model, stream.info)
    saved = short.state_dict()
    grown_state = grow_state(long, saved)
    long.load_state_dict(grown_state)
    for name, value in saved.items():
        old = grown_state[name][tuple(map(slice, value.shape))]
        assert_close(old, value, rtol=0, atol=0, equal_nan=True, msg=name)


def test_slots_of_a_masked_pool_grow_with_a_larger_pool():
    def pool(model, size, stream):
        L2P(pool_size=size, prompt_length=2, top_k=2, task_mask=True).attach_once(model, stream.info)
        return model

    saved = pool(Model(4), 4, short_stream()).state_dict()
    with pytest.raises(ValueError, match="the task mask needs 4 tasks x 2 prompts = 8"):
        pool(Model(8), 4, long_stream())
    long = pool(Model(8), 8, long_stream())
    name = "continual.parts.l2p.provider.prompts"
    assert torch.equal(grow_state(long, saved)[name][:4], saved[name])
    shared = Model(8)
    L2P(pool_size=8, prompt_length=2, top_k=2).attach_once(shared, long_stream().info)
    with pytest.raises(ValueError, match="does not grow with the stream"):
        grow_state(shared, saved)


# ---------------------------------------------------------------------- a run that goes on


class Model(PlainModule):
    def __init__(self, outputs: int, optimizer: str = "adamw", dropout: float = 0.2) -> None:
        super().__init__(optimizer)
        seed_everything(0, verbose=False)  # a backbone that does not depend on the number of outputs
        self.net = tiny_vit(num_classes=0, drop_rate=dropout)
        self.net.head = nn.Linear(32, outputs)


def model_for(method: type, outputs: int) -> Model:
    model = Model(outputs)
    if method.family in FAMILIES:
        model.net = CLIPProbe()
        model.net.fc = nn.Linear(24, outputs)
    return model


class Loaded(Callback):
    """The module's state when training starts, and at the end of every task."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def _note(self, pl_module: LightningModule) -> None:
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_start(self, trainer, pl_module):
        self._note(pl_module)
        self.optimizer = [{k: v.clone() for k, v in s.items()} for s in trainer.optimizers[0].state.values()]

    def on_task_end(self, trainer, pl_module, task):
        self._note(pl_module)


class Abort(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/killed.ckpt")
            raise ConnectionAbortedError


class Fit:
    """One fit in fresh objects from seed 0."""

    def __init__(
        self,
        folder,
        stream,
        methods,
        outputs,
        ckpt_path=None,
        optimizer="adamw",
        abort=None,
        dropout=0.2,
        saving=None,
        **options,
    ):
        seed_everything(0, verbose=False)
        self.stream, self.model, self.loaded = stream, Model(outputs, optimizer, dropout), Loaded()
        self.evaluation = ContinualEvaluation(report=False, print_table=False)
        self.trainer = Trainer(
            **{
                "accelerator": "cpu",
                "devices": 1,
                "logger": False,
                "enable_checkpointing": saving is not None,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "default_root_dir": folder,
                **options,
            },
            callbacks=[
                *methods,
                self.evaluation,
                self.loaded,
                *([Abort(abort)] if abort else []),
                *([saving] if saving else []),
            ],
        )
        self.trainer.fit(self.model, datamodule=stream, ckpt_path=ckpt_path)

    def saved(self, path):
        self.trainer.save_checkpoint(path)
        return path

    def result(self):
        return {
            **self.model.state_dict(),
            **{f"correct/{space}": counts for space, counts in self.evaluation.correct.items()},
            "total": self.evaluation.total,
            "samples": torch.tensor(self.evaluation.samples_seen),
            "steps": torch.tensor([self.trainer.global_step, self.trainer.current_epoch]),
        }


METHODS = {
    "coda": lambda: [CODAPrompt(pool_size=5, prompt_length=2, layers=(0, 1), ortho_weight=0.1)],
    "dual": lambda: [DualPrompt(2, 2, (0,), (1,))],
    "l2p": lambda: [L2P(pool_size=6, prompt_length=2, top_k=2)],
    "one": lambda: [OnePrompt((0, 1), 2)],
    "ovor": lambda: [
        OnePrompt((0, 1), 2),
        VirtualOutlierRegularizer(outlier_epochs=0, neighbours=5, boundary_points=5, draws=20),
    ],
    "prototypes": lambda: [PrototypeClassifier()],
    "finetuning": lambda: [FineTuning("net.head", "seen")],
    "replay": lambda: [FineTuning("net.head"), ExperienceReplay(8, batch_size=4)],
    "teen": lambda: [TEEN()],
}
#: Names of what has a row per class or task, and how many rows were learned in the two tasks of the short stream.
GROWN = {
    "coda": {f"continual.parts.codaprompt.provider.{name}": 4 for name in ("keys", "attention", "components")},
    "dual": {f"continual.parts.dualprompt.provider.{name}": 2 for name in ("experts", "keys")},
    "prototypes": {f"continual.parts.prototypeclassifier.bank.{name}": 4 for name in ("sums", "counts")},
    "teen": {f"continual.parts.teen.bank.{name}": 4 for name in ("sums", "counts", "base")},
}
HEAD = {"net.head.weight": 4, "net.head.bias": 4}


def some(*quick):
    """The others are slow tests."""
    names = [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]
    return pytest.mark.parametrize("name", names)


@pytest.fixture(scope="module")
def short_runs(tmp_path_factory):
    runs: dict[str, Any] = {}

    def get(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            run = Fit(folder, short_stream(), METHODS[name](), 4)
            runs[name] = run, run.saved(folder / "short.ckpt")
        return runs[name]

    return get


@pytest.fixture(scope="module")
def long_runs(short_runs, tmp_path_factory):
    runs: dict[str, Any] = {}

    def get(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            run = Fit(folder, long_stream(), METHODS[name](), 8, short_runs(name)[1])
            runs[name] = run, run.saved(folder / "long.ckpt")
        return runs[name]

    return get


@some("coda", "dual", "prototypes", "finetuning")
def test_a_finished_run_goes_on(name, short_runs, long_runs):
    short, long = short_runs(name)[0], long_runs(name)[0]
    before, (loaded, *ends) = short.model.state_dict(), long.loaded.states
    rows = {**HEAD, **GROWN.get(name, {})}
    fresh = Model(8)  # the module as it is before anything is loaded
    seed_everything(0, verbose=False)  # as at the start of a fit
    for method in METHODS[name]():
        method.attach_once(fresh, long.stream.info)
    for key, value in before.items():
        if key in rows:  # loading: old rows bit for bit, new ones as the module's initialiser made them
            assert len(loaded[key]) > rows[key]
            assert torch.equal(loaded[key][: len(value)], value), key
            assert torch.equal(loaded[key][len(value) :], fresh.state_dict()[key][len(value) :]), key
        elif not key.startswith("continual.mask"):
            assert torch.equal(loaded[key], value), key
    assert loaded["continual.mask.eval_allowed"].tolist() == [True] * 4 + [False] * 4
    if name not in ("l2p", "finetuning", "replay"):  # protected in training as usual
        for key, count in rows.items():
            assert all(torch.equal(end[key][:count], before[key][:count]) for end in ends), key
    if name not in ("prototypes", "teen"):
        assert not torch.equal(ends[-1]["net.head.weight"][4:], loaded["net.head.weight"][4:])
    assert len(ends) == 2
    assert [task.index for task in long.stream.tasks] == [0, 1, 2, 3]
    assert long.trainer.global_step == 2 * short.trainer.global_step
    for space, counts in short.evaluation.correct.items():
        assert torch.equal(long.evaluation.correct[space][:2, :2], counts)  # old cells are kept
        assert torch.equal(long.evaluation.total > 0, torch.ones(4, 4, dtype=torch.bool).tril())
    assert long.evaluation.samples_seen == [2 * PER_CLASS] * 4


slow = [
    pytest.param(name, optimizer, marks=pytest.mark.slow)
    for name, optimizer in (("coda", "sgd"), ("one", "sgd"), ("prototypes", "sgd"), ("finetuning", "adamw"))
]


@pytest.mark.parametrize(("name", "optimizer"), [("coda", "adamw"), ("finetuning", "sgd"), *slow])
def test_going_on_is_as_if_the_stream_had_been_long_from_the_start(name, optimizer, tmp_path):
    # With one output for each class from the start there is nothing to draw that the other run does not draw.
    methods = {
        "coda": lambda: [CODAPrompt(pool_size=4, prompt_length=2, layers=(0, 1), head="net.head")],
        "one": lambda: [OnePrompt((0, 1), 2, head="net.head")],
        "prototypes": lambda: [PrototypeClassifier(head="net.head")],
        "finetuning": lambda: [FineTuning("net.head", "seen")],
    }
    whole = Fit(tmp_path, long_stream(), methods[name](), 8, optimizer=optimizer)
    short = Fit(tmp_path, short_stream(), methods[name](), 8, optimizer=optimizer)
    rest = Fit(tmp_path, long_stream(), methods[name](), 8, short.saved(tmp_path / "short.ckpt"), optimizer=optimizer)
    assert_same_bits(rest.result(), whole.result())


@some("coda")
def test_an_extended_run_can_be_killed_and_resumed(name, short_runs, long_runs, tmp_path):
    path = short_runs(name)[1]
    # In the middle of the third task, its last batch, in the fourth; for the others one place is enough.
    for step in (8, 9, 11) if name == "coda" else (8,):
        with pytest.raises(ConnectionAbortedError):
            Fit(tmp_path, long_stream(), METHODS[name](), 8, path, abort=step)
        resumed = Fit(tmp_path, long_stream(), METHODS[name](), 8, tmp_path / "killed.ckpt")
        assert_same_bits(resumed.result(), long_runs(name)[0].result())


@some("coda", "finetuning")
@torch.no_grad()
def test_the_extended_model_is_restored_and_shipped(name, long_runs, tmp_path):
    run, path = long_runs(name)
    images = torch.randn(4, 1, 16, 16)
    restored = lightning_cl.restore(path, Model(8), METHODS[name]())
    expected = run.model.eval()(images)
    assert torch.equal(restored(images), expected)
    lightning_cl.save_method(tmp_path / "method", restored)
    seed_everything(0, verbose=False)
    base = Model(8)
    assert torch.equal(lightning_cl.load_method(tmp_path / "method", base)(images), expected)


def test_optimiser_state_goes_on_where_nothing_resets_it(short_runs, long_runs):
    before = list(short_runs("finetuning")[0].trainer.optimizers[0].state_dict()["state"].values())
    after = long_runs("finetuning")[0].loaded.optimizer
    assert len(before) == len(after)
    widened = 0
    for old, new in zip(before, after, strict=True):
        for key, value in old.items():
            assert torch.equal(new[key][: len(value)] if value.ndim else new[key], value)
            if value.shape != new[key].shape:
                widened += 1
                assert new[key][4:].eq(0).all()
    assert widened == 4  # both moments of weight and bias of the head


@pytest.mark.parametrize(
    "saving",
    [
        pytest.param(
            lambda f: ModelCheckpoint(f, save_last=True, save_on_train_epoch_end=True), marks=pytest.mark.slow
        ),
        lambda folder: ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=False),
        pytest.param(lambda folder: ContinualCheckpoint(folder), marks=pytest.mark.slow),
    ],
    ids=["epoch-end", "validation-end", "continual"],
)
def test_any_last_checkpoint_will_do(saving, tmp_path, long_runs):
    Fit(tmp_path, short_stream(), METHODS["coda"](), 4, saving=saving(tmp_path))
    rest = Fit(tmp_path, long_stream(), METHODS["coda"](), 8, tmp_path / "last.ckpt")
    assert_same_bits(rest.result(), long_runs("coda")[0].result())


def test_a_run_goes_on_in_the_middle_of_a_task(tmp_path):
    with pytest.raises(ConnectionAbortedError):
        Fit(tmp_path, short_stream(), METHODS["one"](), 4, abort=4)
    rest = Fit(tmp_path, long_stream(), METHODS["one"](), 8, tmp_path / "killed.ckpt")
    assert rest.trainer.global_step == 12
    assert int((rest.evaluation.total > 0).sum()) == 10


def test_the_same_stream_goes_on_after_a_fit(tmp_path, long_runs):
    stream = short_stream()
    first = Fit(tmp_path, stream, METHODS["coda"](), 4)
    path = first.saved(tmp_path / "short.ckpt")
    stream.extend(digits((4, 5, 6, 7)), ClassIncremental(num_tasks=2, class_order=range(4)))
    with pytest.raises(
        ValueError, match=r"built for the stream before it was extended \(2 of 4 tasks, 4 of 8 classes\)"
    ):
        first.trainer.fit(first.model, datamodule=stream, ckpt_path=path)
    assert stream.schedule.epochs == (1, 1, 1, 1)
    again = Fit(tmp_path, stream, METHODS["coda"](), 8, path)
    assert_same_bits(again.result(), long_runs("coda")[0].result())


def test_the_same_trainer_goes_on(tmp_path):
    stream = short_stream()
    run = Fit(tmp_path, stream, [FineTuning("net.head")], 8)
    path = run.saved(tmp_path / "short.ckpt")
    stream.extend(digits((4, 5, 6, 7)), ClassIncremental(num_tasks=2, class_order=range(4)))
    run.trainer.fit(Model(8), datamodule=stream, ckpt_path=path)
    assert run.trainer.global_step == 12
    assert int((run.evaluation.total > 0).sum()) == 10


def test_other_checkpoints_are_refused(tmp_path, short_runs, long_runs):
    stream = ContinualDataModule(digits((0, 1, 2, 3)), ClassIncremental(2, class_order=[0, 2, 1, 3]), batch_size=6)
    stream.extend(digits((4, 5, 6, 7)), ClassIncremental(num_tasks=2, class_order=range(4)))
    saved, here = short_stream().info, stream.info
    with pytest.raises(ValueError, match="another stream") as error:
        Fit(tmp_path, stream, METHODS["one"](), 8, short_runs("one")[1])
    for part in (saved.fingerprint[:12], here.fingerprint[:12], "[0, 1] in the checkpoint and [0, 2] here"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="another stream: 4 tasks, 8 classes, hash"):
        Fit(tmp_path, short_stream(), METHODS["one"](), 8, long_runs("one")[1])
    with pytest.raises(ValueError, match=r"4 outputs but the stream has 8 classes"):
        Fit(tmp_path, long_stream(), METHODS["one"](), 4, short_runs("one")[1])
    with pytest.raises(ValueError, match=r"provider\.prefixes\.0` has the shape .* does not grow with the stream"):
        Fit(tmp_path, long_stream(), [OnePrompt((0, 1), 3)], 8, short_runs("one")[1])
    plain = Fit(tmp_path, short_stream(), [], 4).saved(tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match="without a method nothing grows"):
        Fit(tmp_path, long_stream(), [], 8, plain)


def test_the_difference_is_said_in_words():
    short, long = short_stream().info, long_stream().info
    assert "it was extended from 2 tasks" in difference(StreamInfo(1, 4, tuple("0123"), ((0, 1),), "a" * 64), long)
    renamed = StreamInfo(2, 4, tuple("0x23"), short.classes_per_task, "b" * 64)
    assert "class 1 is 'x' in the checkpoint and '1' here" in difference(renamed, short)
    assert "bbbbbbbbbbbb" in difference(renamed, short)
    assert short.fingerprint[:12] in difference(renamed, short)


@pytest.mark.slow
def test_two_processes_go_on_as_one(tmp_path, short_runs):
    options = {"optimizer": "sgd", "precision": "64-true", "dropout": 0.0}
    path = Fit(tmp_path, short_stream(), METHODS["dual"](), 4, **options).saved(tmp_path / "short.ckpt")

    def rank() -> None:
        run = Fit(tmp_path, long_stream(), METHODS["dual"](), 8, path, **options, strategy="ddp", devices=2)
        torch.save(run.result(), tmp_path / f"rank{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = Fit(tmp_path, long_stream(), METHODS["dual"](), 8, path, **options).result()
    for index in (0, 1):
        result = torch.load(tmp_path / f"rank{index}.pt", weights_only=True)
        for key, value in expected.items():
            assert_close(result[key], value, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")
