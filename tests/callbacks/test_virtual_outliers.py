"""OVOR's phases on a stream of small digits: 3 tasks of 27 images, in batches of 8, 8, 8 and 3."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN, Case, PlainModule, SplitModule
from conformance.runs import assert_same_bits, in_forked_processes, train
from conformance.streams import NUM_TASKS, STEPS_PER_EPOCH, make_stream
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from lightning_cl.callbacks import (
    CODAPrompt,
    ContinualCallback,
    DualPrompt,
    OnePrompt,
    PrototypeClassifier,
    VirtualOutlierRegularizer,
)
from lightning_cl.datamodules import ClassIncremental
from lightning_cl.nn import synthesize_outliers

SMALL = {"neighbours": 10, "boundary_points": 10, "draws": 40, "per_class": 10}
ONE = {"layers": (0, 1), "lengths": 3}
EPOCHS = {"epochs_per_task": 3}


def ovor(**options):
    return VirtualOutlierRegularizer(**{**SMALL, "warm_up_epochs": 1, "outlier_epochs": 1, **options})


def part_of(module):
    return module.continual.parts["virtualoutlierregularizer"]


def phase_of(module):
    return part_of(module).phase(module)


class Keeping(PlainModule):
    """Gradients are zeroed, not dropped, as some users want it."""

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)

    def on_validation_model_zero_grad(self):
        pass


KEEPING = Case("keeping", Keeping, "net.head", "net")


class Phases(ContinualCallback):
    """What moved in each epoch, among weights and optimiser states: of the head, and of everything else."""

    def __init__(self):
        self.moved = []

    def snapshot(self, trainer, module):
        head = {id(p) for p in module.continual_head.parameters()}
        now = {"head": [], "rest": []}
        for p in module.parameters():
            state = trainer.optimizers[0].state.get(p, {})
            tensors = [p.detach(), *(v for v in state.values() if isinstance(v, torch.Tensor))]
            now["head" if id(p) in head else "rest"] += [t.clone() for t in tensors]
        return now

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.before = self.snapshot(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.is_last_batch:
            now = self.snapshot(trainer, pl_module)
            same = {k: len(a) == len(now[k]) and all(map(torch.equal, a, now[k])) for k, a in self.before.items()}
            self.moved.append((phase_of(pl_module), not same["head"], not same["rest"]))


@pytest.mark.parametrize(
    ("case", "optimizer", "mode"),  # decay and momentum move weights without a gradient
    [(PLAIN, "adamw", "origin"), (KEEPING, "adamw", "boundary"), (KEEPING, "sgd", "origin")],
    ids=["adamw", "adamw-keeping", "sgd-keeping"],
)
def test_head_only_epochs_leave_prompts_and_their_optimiser_state_alone(case, optimizer, mode, tmp_path):
    phases = Phases()
    train(
        case,
        OnePrompt(**ONE),
        tmp_path,
        optimizer=optimizer,
        callbacks=[ovor(mode=mode), phases],
        stream_options={"epochs_per_task": 4},
    )
    regular, outlier = ("regular", True, True), ("outlier", True, False)
    first = [regular, regular, regular, outlier]
    assert phases.moved == first + [("warm_up", True, False), regular, regular, outlier] * (NUM_TASKS - 1)


class Losses(Callback):
    """The loss of every step beside cross-entropy and prompt loss of the same batch, in the same state."""

    def __init__(self):
        self.seen = []

    @torch.no_grad()
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.entropy = F.cross_entropy(pl_module(batch[0]), batch[1]).item()
        self.prompt_loss = pl_module.prompts.pending_losses.pop().item()

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.seen.append((phase_of(pl_module), outputs["loss"].item(), self.entropy, self.prompt_loss))


def test_in_the_warm_up_other_methods_terms_do_not_count(tmp_path):
    losses = Losses()
    dual = DualPrompt(2, 2, (0,), (1,))
    train(PLAIN, dual, tmp_path, callbacks=[ovor(), losses], stream_options=EPOCHS)
    for phase, loss, entropy, prompt_loss in losses.seen:
        assert prompt_loss > 0.01
        if phase != "outlier":
            assert loss == pytest.approx(entropy + prompt_loss * (phase == "regular"), abs=1e-5)


class ByTheBook(Callback):
    """Recomputes every outlier step from the module as it was before the step."""

    def __init__(self, settings):
        self.settings, self.compared, self.num_outliers = settings, 0, set()

    @torch.no_grad()
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if phase_of(pl_module) != "outlier":
            return
        if batch_idx == 0:
            self.features, self.expected = {}, []
        self.head = copy.deepcopy(pl_module.continual_head.state_dict())
        twin = copy.deepcopy(pl_module).eval()  # prompts are chosen as at test time
        twin.net.head = torch.nn.Identity()
        self.batch = twin(batch[0]), batch[1]  # the same augmented images as those that were collected

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if phase_of(pl_module) != "outlier":
            return
        stream, (features, labels) = trainer.datamodule, self.batch
        self.data = data = part_of(pl_module).data or self.data  # gone after the task's last batch
        rows = torch.searchsorted(data.positions, stream.train_batch(batch_idx).index)
        assert_close(data.features[rows], features, rtol=1e-4, atol=1e-5)
        assert torch.equal(data.labels[rows], labels)

        classes = list(stream.task.classes)
        weight, bias = self.head["weight"][classes], self.head["bias"][classes]
        size = len(data.outliers) // STEPS_PER_EPOCH
        shares = features, data.outliers[batch_idx * size :][:size]
        inside, outside = (x @ weight.T + bias for x in shares)
        hinges = (15 - inside.logsumexp(1)).clamp_min(0), (outside.logsumexp(1) - 3).clamp_min(0)
        huber = [torch.where(h <= 1, h**2 / 2, h - 0.5).mean() for h in hinges]
        entropy = F.cross_entropy(inside, labels - classes[0])
        assert_close(outputs["loss"], entropy + 0.1 * (huber[0] + huber[1]), rtol=1e-4, atol=1e-5)
        self.compared += 1
        self.num_outliers.add(len(data.outliers))


@pytest.mark.parametrize(
    ("prompts", "mode"),
    [(OnePrompt(**ONE), "boundary"), (DualPrompt(2, 2, (0,), (1,)), "origin")],
    ids=["one-boundary", "dual-origin"],
)
def test_an_outlier_step_is_the_formula_over_the_tasks_columns(prompts, mode, tmp_path):
    book = ByTheBook(SMALL)
    callbacks = [ovor(mode=mode, noise=1.0), book]
    train(PLAIN, prompts, tmp_path, callbacks=callbacks, stream_options=EPOCHS)
    assert book.compared == NUM_TASKS * STEPS_PER_EPOCH
    assert book.num_outliers == {20}


class Outliers(Callback):
    """Keeps what every outlier epoch trained on, and the mass of its features after every step."""

    def __init__(self):
        self.epochs, self.mass = [], []

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if phase_of(pl_module) == "outlier":
            if batch_idx == 0:
                self.epochs.append(part_of(pl_module).data)
            self.mass.append(pl_module.continual_head(self.epochs[-1].features).logsumexp(1).mean().item())
        else:
            assert part_of(pl_module).data is None


def test_outliers_are_made_anew_in_every_epoch_from_the_tasks_features(tmp_path):
    seen = Outliers()
    run = train(
        PLAIN,
        OnePrompt(**ONE),
        tmp_path,
        callbacks=[ovor(outlier_epochs=2, warm_up_epochs=0), seen],
        stream_options=EPOCHS,
    )
    assert [data.epoch for data in seen.epochs] == [1, 2, 4, 5, 7, 8]
    assert part_of(run.module).data is None  # not kept beyond its task
    for first, second in (seen.epochs[:2], seen.epochs[2:4]):
        assert torch.equal(first.positions, second.positions)
        assert not torch.equal(first.features, second.features)  # another augmentation
        assert not torch.equal(first.outliers, second.outliers)
    data = seen.epochs[0]
    settings = {name: SMALL[name] for name in ("neighbours", "boundary_points", "draws", "per_class")}
    again = synthesize_outliers(data.features, 2, "origin", **settings)
    assert again.shape == data.outliers.shape == (20, 32)


def test_the_mass_of_the_tasks_features_rises(tmp_path):
    seen = Outliers()
    train(
        PLAIN,
        OnePrompt(**ONE),
        tmp_path,
        callbacks=[ovor(weight=1.0, outlier_epochs=2, warm_up_epochs=0), seen],
        stream_options=EPOCHS,
    )
    mass = torch.tensor(seen.mass).unflatten(0, (NUM_TASKS, -1))
    assert (mass[:, -1] > mass[:, 0] + 0.05).all()


class Twice(ClassIncremental):
    """Three samples come twice in their task."""

    def train_tasks(self, labels, domains, num_classes, seed):
        return [torch.cat([part, part[:3]]) for part in super().train_tasks(labels, domains, num_classes, seed)]


def test_a_sample_that_comes_twice_has_one_feature(tmp_path):
    seen = Outliers()
    original = make_stream()
    scenario = Twice(num_tasks=3, class_order=range(6))

    class Repeating(type(original)):
        def __init__(self, *args, **options):
            super().__init__(args[0], scenario, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conformance.streams.ContinualDataModule", Repeating)
        train(PLAIN, OnePrompt(**ONE), tmp_path, callbacks=[ovor(), seen], stream_options=EPOCHS)
    for data in seen.epochs:
        assert len(data.positions) == 27
        assert (data.features.norm(dim=1) > 0).all()


class Projected(SplitModule):
    """What reaches the head comes from a linear layer, which autocast runs in 16 bit."""

    def __init__(self, *options):
        super().__init__(*options)
        self.project = torch.nn.Linear(32, 32)

    def forward(self, images):
        return self.fc(self.project(self.backbone(images)))


PROJECTED = Case("projected", Projected, "fc", "backbone")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_features_have_the_precision_of_the_head(precision, dtype, tmp_path):
    seen = Outliers()
    train(PROJECTED, OnePrompt(**ONE), tmp_path, callbacks=[ovor(), seen], stream_options=EPOCHS, precision=precision)
    assert {data.features.dtype for data in seen.epochs} == {data.outliers.dtype for data in seen.epochs} == {dtype}


# ---------------------------------------------------------------------- resuming and processes


class Crash(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step + 1:  # one step that no checkpoint knows of
            raise ConnectionAbortedError("the power is gone")


@pytest.mark.parametrize("epoch", [1, 3, 4], ids=["outlier", "warm-up", "outlier-of-task-1"])
def test_resuming_inside_a_phase_is_invisible(epoch, tmp_path):
    options = {"dropout": 0.3, "stream_options": {"epochs_per_task": (2, 3, 3)}}
    make = lambda: (PLAIN, DualPrompt(2, 2, (0,), (1,)), tmp_path)  # noqa: E731
    expected = train(*make(), callbacks=[ovor()], **options)
    step = epoch * STEPS_PER_EPOCH + 2
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    with pytest.raises(ConnectionAbortedError):
        train(*make(), callbacks=[ovor(), Crash(step), saving], **options)
    resumed = train(*make(), callbacks=[ovor()], ckpt_path=tmp_path / f"step={step}.ckpt", **options)
    assert_same_bits(resumed.result(), expected.result())
    states = [run.trainer.optimizers[0].state_dict() for run in (resumed, expected)]
    assert str(states[0]) == str(states[1])


@pytest.mark.parametrize("kind", ["one", pytest.param("dual", marks=pytest.mark.slow)])
def test_two_processes_equal_one(kind, tmp_path):
    options = {"optimizer": "sgd", "precision": "64-true", "stream_options": EPOCHS}
    always = {"mode": "boundary", "noise": 1.0, "outlier_threshold": 3.0}  # so that every outlier counts

    def run(**processes):
        prompts = OnePrompt(**ONE) if kind == "one" else DualPrompt(2, 2, (0,), (1,))
        return train(PLAIN, prompts, tmp_path, callbacks=[ovor(**always)], **options, **processes)

    def rank():
        finished = run(strategy="ddp", devices=2)
        torch.save(finished.result(), tmp_path / f"rank{finished.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    ranks = [torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1)]
    for name, value in run().result().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), f"{name} differs between the ranks"
        assert_close(ranks[0][name], value, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


# ---------------------------------------------------------------------- what does not fit


def fit(tmp_path, *callbacks, case=PLAIN, method=None, **stream_options):
    stream_options = {**EPOCHS, **stream_options}
    return train(case, method or OnePrompt(**ONE), tmp_path, callbacks=callbacks, stream_options=stream_options)


@pytest.mark.parametrize(
    ("regularizer", "stream_options", "words"),
    [
        ({}, {"epochs_per_task": 1}, "task 1 has 1 epoch.*take 2; raise `epochs_per_task`, or lower `warm_up_epochs`"),
        (
            {"neighbours": 28},
            {},
            r"task 0 has 27 training samples, fewer than the 28 .* lower `neighbours` .* at most 27",
        ),
        ({"mode": "boundary", "boundary_points": 50}, {}, "fewer than the 50 .* `boundary_points`"),
        ({}, {"early_stopping": "task"}, "a task must not end early; set `ContinualDataModule"),
    ],
    ids=["epochs", "neighbours", "boundary", "early-stopping"],
)
def test_a_stream_that_does_not_fit_is_refused_before_training(regularizer, stream_options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        fit(tmp_path, ovor(**regularizer), **stream_options)


def test_in_origin_mode_boundary_points_need_no_samples(tmp_path):
    fit(tmp_path, ovor(boundary_points=50))


def test_a_task_without_a_regular_epoch_is_pointed_out(tmp_path):
    with pytest.warns(UserWarning, match="take all 1 epoch.* of task 0, so only the head learns"):
        fit(tmp_path, ovor(warm_up_epochs=0), epochs_per_task=1)


def test_it_stands_behind_the_method_that_it_regularises(tmp_path):
    coda = CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1))
    with pytest.raises(ValueError, match=r"stands before CODAPrompt.*`callbacks=\[CODAPrompt\(...\), VirtualOutlier"):
        fit(tmp_path, coda, method=ovor())


def test_a_method_that_does_not_train_the_head_is_refused(tmp_path):
    for callbacks in ((PrototypeClassifier(), ovor()), (ovor(), PrototypeClassifier())):
        with pytest.raises(ValueError, match="PrototypeClassifier makes the answers without training it; use one or"):
            fit(tmp_path, *callbacks[1:], method=callbacks[0])


class Apart(SplitModule):
    """The forward pass gives features; the head is called in the step only."""

    def forward(self, images):
        return self.backbone(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.fc(self(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.fc(self(batch[0])), batch[1]))


def test_a_forward_without_the_head_is_told_so(tmp_path):
    case = Case("apart", Apart, "fc", "backbone")
    with pytest.raises(ValueError, match=r"the head `fc` was not called by `Apart.forward`.* name the layer"):
        fit(tmp_path, ovor(), case=case)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "centre"}, "`mode` is 'centre'; give \"boundary\""),
        ({"outlier_epochs": -1}, "`outlier_epochs` is -1; give at least 0"),
        ({"warm_up_epochs": -1}, "`warm_up_epochs` is -1; give at least 0"),
        ({"neighbours": 0}, "`neighbours` is 0; give at least 1"),
        ({"draws": 0}, "`draws` is 0; give at least 1"),
    ],
)
def test_numbers_are_checked_when_given(options, words):
    with pytest.raises(ValueError, match=words):
        ovor(**options)


def test_its_arguments_are_in_the_report(tmp_path):
    run = fit(tmp_path, ovor(weight=0.2))
    methods = run.evaluation.build_report(run.trainer, run.module).methods
    assert list(methods) == ["OnePrompt", "VirtualOutlierRegularizer"]
    told = methods["VirtualOutlierRegularizer"]
    assert (told["weight"], told["neighbours"], told["train_mask"]) == (0.2, 10, "task")
