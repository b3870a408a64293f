"""A model author inherits the mixin, and the Trainer knows no method."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import optimizer_for, tiny_vit
from conformance.streams import NUM_TASKS, STEPS_PER_EPOCH, make_stream
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from lightning_cl.callbacks import CODAPrompt, ContinualEvaluation, DualPrompt, VirtualOutlierRegularizer
from lightning_cl.mixins import ContinualMixin, PromptMixin
from lightning_cl.nn import CODAPromptPool, DualPromptPool


class MyModel(PromptMixin, LightningModule):
    """Written as one writes a LightningModule."""

    def __init__(self, kind="dual", cache_queries=True):
        super().__init__()
        self.net = tiny_vit()
        self.kind, self.cache_queries = kind, cache_queries

    def setup(self, stage):
        if not hasattr(self, "prompts"):
            info = self.trainer.datamodule.info
            self.configure_continual(info, train_mask="task", reset_optimizer=True)
            self.add_prompts(self.pool(info.num_tasks), cache_queries=self.cache_queries)

    def pool(self, num_tasks):
        if self.kind == "coda":
            return CODAPromptPool(num_tasks, 32, pool_size=9, prompt_length=4, layers=(0, 1), ortho_weight=0.1)
        return DualPromptPool(num_tasks, 32, 2, 3, (0,), (1, 2))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("own_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return optimizer_for(self, "adamw")


class Plain(LightningModule):
    """The same without the mixin, for the callback."""

    def __init__(self):
        super().__init__()
        self.net = tiny_vit()

    forward, validation_step = MyModel.forward, MyModel.validation_step
    training_step, configure_optimizers = MyModel._own_training_step, MyModel._own_configure_optimizers


class Behind(PromptMixin, Plain):
    """The mixin in front of a module of the author's."""

    kind, cache_queries = "dual", True
    setup, pool = MyModel.setup, MyModel.pool


CALLBACKS = {
    "dual": lambda: DualPrompt(2, 3, (0,), (1, 2)),
    "coda": lambda: CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1), ortho_weight=0.1),
}


class Watch(Callback):
    """Losses, and whether rows of other tasks moved although AdamW's decay pulls at all of them."""

    def __init__(self):
        self.losses, self.moved = [], 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = [(p, rows, p.detach()[rows].clone()) for p, rows in pl_module.protected_rows()]
        assert self.before

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.losses.append(outputs["loss"].item())
        self.moved += sum(not torch.equal(p.detach()[rows], was) for p, rows, was in self.before)


def fit(module, folder, *callbacks, ckpt_path=None, seed=0, **stream_options):
    evaluation, watch = ContinualEvaluation(report=False, print_table=False), Watch()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[*callbacks, evaluation, watch],
    )
    seed_everything(seed, verbose=False)
    trainer.fit(module, datamodule=make_stream(**stream_options), ckpt_path=ckpt_path)
    return evaluation, watch, trainer


def built(cls, **options):
    seed_everything(0, verbose=False)
    return cls(**options)


@pytest.mark.parametrize("kind", CALLBACKS)
def test_it_trains_as_with_the_callback(kind, tmp_path):
    mine, other = built(MyModel, kind=kind), built(Plain)
    evaluation, watch, trainer = fit(mine, tmp_path)
    expected, expected_watch, _ = fit(other, tmp_path, CALLBACKS[kind]())
    assert watch.losses == expected_watch.losses
    assert watch.moved == 0
    assert torch.equal(evaluation.correct["class_il"], expected.correct["class_il"])
    assert evaluation.total.tril().count_nonzero() == NUM_TASKS * (NUM_TASKS + 1) / 2
    part = next(iter(other.continual.parts))  # the callback's is named as the method
    for name, value in mine.state_dict().items():
        assert torch.equal(value, other.state_dict()[name.replace("parts.prompts", f"parts.{part}")]), name
    assert mine.net.prompt_state()[1].hits > 0
    assert {"own_loss", "prompt_loss", "val_loss"} <= set(trainer.callback_metrics)


def test_a_mixin_in_front_of_ones_own_module_is_the_same(tmp_path):
    mine, other = built(MyModel), built(Behind)
    fit(mine, tmp_path)
    fit(other, tmp_path)
    for name, value in mine.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_only_seen_classes_are_answered_and_only_the_tasks_compete(tmp_path):
    masks = []

    class Masks(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            masks.append(pl_module(batch[0]).gt(-500).all(dim=0).nonzero().flatten().tolist())

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
            masks.append(pl_module(batch[0]).gt(-500).all(dim=0).nonzero().flatten().tolist())

    fit(built(MyModel), tmp_path, Masks())
    training, evaluation = [[0, 1], [2, 3], [4, 5]], [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    expected = {tuple(classes) for classes in training + evaluation}
    assert {tuple(classes) for classes in masks} == expected
    assert masks[:STEPS_PER_EPOCH] == training[:1] * STEPS_PER_EPOCH


def test_the_cache_changes_nothing(tmp_path):
    mine, other = built(MyModel), built(MyModel, cache_queries=False)
    evaluations = [fit(module, tmp_path)[0] for module in (mine, other)]
    assert torch.equal(evaluations[0].correct["class_il"], evaluations[1].correct["class_il"])
    assert other.net.prompt_state()[1].hits == 0


def test_resuming_is_invisible(tmp_path):
    class Crash(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == step + 1:
                raise ConnectionAbortedError("the power is gone")

    step = STEPS_PER_EPOCH + 2  # the middle of an epoch of task 1
    expected = built(MyModel)
    fit(expected, tmp_path)
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    with pytest.raises(ConnectionAbortedError):
        fit(built(MyModel), tmp_path, Crash(), saving)
    resumed = built(MyModel)
    fit(resumed, tmp_path, ckpt_path=tmp_path / f"step={step}.ckpt", seed=5)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_stream_is_refused(tmp_path):
    _, _, trainer = fit(built(MyModel), tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="another stream"):
        fit(built(MyModel), tmp_path, ckpt_path=tmp_path / "last.ckpt", val_split=0.2)


def test_callbacks_stack_on_it(tmp_path):
    regularizer = VirtualOutlierRegularizer(neighbours=10, outlier_epochs=1)
    mine = built(MyModel)
    _, watch, _ = fit(mine, tmp_path, regularizer, epochs_per_task=2)
    assert mine.continual.parts["virtualoutlierregularizer"].method.neighbours == 10
    assert watch.moved == 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
@torch.no_grad()
def test_a_copy_is_whole(duplicate, tmp_path):
    mine = built(MyModel)
    fit(mine, tmp_path)
    mine.trainer = None
    images = torch.rand(3, 1, 16, 16)
    assert_close(duplicate(mine).eval()(images), mine.eval()(images), rtol=0, atol=0)


# ---------------------------------------------------------------------- the order of inheritance


def test_the_authors_step_keeps_its_signature():  # Lightning passes `batch_idx` only to a step that takes it
    class WithoutIndex(PromptMixin, LightningModule):
        def training_step(self, batch):
            return batch

    assert list(inspect.signature(WithoutIndex.training_step).parameters) == ["self", "batch"]
    assert list(inspect.signature(MyModel.training_step).parameters) == ["self", "batch", "batch_idx"]


class Doubling(ContinualMixin):
    """A mixin of the author's own."""

    def training_step(self, *args, **kwargs):
        return 2 * super().training_step(*args, **kwargs)


def stepped(cls):
    module = cls()
    module.configure_continual(make_stream().info)
    return module.training_step(torch.ones(()), 0)


def with_head(*bases):
    class Model(*bases):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(2, 6)

        def training_step(self, batch, batch_idx):
            return 1 + batch

    return Model


def test_steps_run_outside_in_whoever_overrides_them():
    model = with_head(Doubling, LightningModule)
    assert stepped(model) == 4

    class Calls(model):
        def training_step(self, batch, batch_idx):
            return 10 + super().training_step(batch, batch_idx)

    class Replaces(model):
        def training_step(self, batch, batch_idx):
            return 5 * batch

    class Inherits(model):
        pass

    assert stepped(Calls) == 14
    assert stepped(Replaces) == 10
    assert stepped(Inherits) == 4

    class Tripling(Doubling):  # a mixin in a mixin's place: nothing is hidden
        def training_step(self, *args, **kwargs):
            return 3 * ContinualMixin.training_step(self, *args, **kwargs)

    assert stepped(with_head(Tripling, LightningModule)) == 6


@pytest.mark.parametrize("name", ["on_train_start", "on_task_start", "on_validation_batch_start", "on_load_checkpoint"])
def test_another_hook_that_hides_a_mixins_is_refused(name):
    def silent(self, *args):
        pass

    with pytest.raises(TypeError, match=rf"`Model.{name}` hides `\w+Mixin.{name}`; call `super\(\).{name}\(...\)`"):
        type("Model", (PromptMixin, LightningModule), {name: silent})
    with pytest.raises(TypeError, match="hides"):
        type("Model", (MyModel,), {name: silent})


def test_hooks_that_call_super_or_hide_nothing_are_the_authors_business():
    class Model(PromptMixin, LightningModule):
        def on_train_start(self):
            super().on_train_start()

        def on_train_end(self):
            pass

    assert "on_train_start" in vars(Model)
