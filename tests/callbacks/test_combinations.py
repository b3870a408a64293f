"""Methods that stack: every prompt method with OVOR's regulariser, on modules that strangers wrote."""

from __future__ import annotations

import math

import pytest
import torch
from conformance.modules import FOREIGN_DICT, FOREIGN_TUPLE, PLAIN, SPLIT
from conformance.runs import train
from conformance.streams import NUM_CLASSES, NUM_TASKS, STEPS_PER_EPOCH, digits, make_stream
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch.testing import assert_close

import lightning_cl
from lightning_cl.callbacks import (
    APER,
    EWC,
    GPM,
    L2P,
    L2SP,
    LGCL,
    MAS,
    MVP,
    TEEN,
    CODAPrompt,
    DualPrompt,
    FeatureDistillation,
    FineTuning,
    LwF,
    OnePrompt,
    PrototypeClassifier,
    SynapticIntelligence,
    VirtualOutlierRegularizer,
)

from .test_virtual_outliers import phase_of

PROMPTS = {
    "coda": lambda: CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1), ortho_weight=0.1),
    "dual": lambda: DualPrompt(2, 3, (0,), (1, 2)),
    "l2p": lambda: L2P(pool_size=6, prompt_length=2, top_k=2),
    "l2p++": lambda: L2P(pool_size=6, prompt_length=4, top_k=2, form="prefix", layers=(0, 1)),
    "one": lambda: OnePrompt((0, 1), 3),
}
quick = {("coda", "torchgeo"), ("dual", "torch_uncertainty"), ("l2p", "torchgeo"), ("one", "torch_uncertainty")}
pairs = pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case, id=f"{kind}-{case.name}", marks=() if (kind, case.name) in quick else pytest.mark.slow)
        for kind in PROMPTS
        for case in (FOREIGN_TUPLE, FOREIGN_DICT)
    ],
)
EPOCHS = (2, 3, 2)  # the last epoch of each task is an outlier epoch


def ovor():
    return VirtualOutlierRegularizer(neighbours=10, boundary_points=10, draws=40, per_class=10)


class Prompts(Callback):
    """Whether prompts and head moved, in every step."""

    def __init__(self):
        self.moved = []

    def bits(self, module):
        parts = (module.prompts.parameters(), module.continual_head.parameters())
        return [torch.cat([p.detach().flatten() for p in part]) for part in parts]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = self.bits(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        assert math.isfinite(outputs["loss"])
        same = map(torch.equal, self.before, self.bits(pl_module))
        self.moved.append(tuple(not s for s in same))


@pairs
def test_a_prompt_method_and_the_regulariser_on_a_strangers_module(kind, case, tmp_path):
    prompts = Prompts()
    run = train(
        case, PROMPTS[kind](), tmp_path, callbacks=[ovor(), prompts], stream_options={"epochs_per_task": EPOCHS}
    )
    phases = [epoch < epochs - 1 for epochs in EPOCHS for epoch in range(epochs)]
    assert prompts.moved == [(regular, True) for regular in phases for _ in range(STEPS_PER_EPOCH)]
    assert run.watcher.moved_rows == run.watcher.modes == set()
    now = dict(run.module.named_parameters())
    assert [name for name, was in run.watcher.frozen.items() if not torch.equal(now[name], was)] == []
    assert torch.equal(run.evaluation.total > 0, torch.ones(NUM_TASKS, NUM_TASKS, dtype=torch.bool).tril())

    (_, _), (images, _) = digits()
    images = torch.from_numpy(images).float().div(255)[:, None]
    with torch.no_grad():
        logits = run.module.eval()(images)
        assert logits.shape == (len(images), NUM_CLASSES)
        assert_close(torch.cat([run.module(part) for part in images.split(5)]), logits, rtol=1e-4, atol=1e-5)
        run.trainer.save_checkpoint(tmp_path / "last.ckpt")
        callbacks = [PROMPTS[kind](), ovor()]
        other = lightning_cl.restore(tmp_path / "last.ckpt", case.build("adamw", 0.0), callbacks)
        assert_close(other(images), logits, rtol=1e-4, atol=1e-5)


def test_the_regulariser_on_fine_tuning(tmp_path):
    """The backbone learns in regular epochs and stays, statistics and all, in outlier epochs."""

    class Backbone(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = {name: value.clone() for name, value in pl_module.net.state_dict().items()}

        def on_train_batch_end(self, trainer, pl_module, *_):
            moved = {n for n, value in pl_module.net.state_dict().items() if not torch.equal(value, self.before[n])}
            head_only = moved <= {"head.weight", "head.bias"}
            assert head_only == (phase_of(pl_module) == "outlier"), moved

    callbacks = [ovor(), Backbone()]
    train(PLAIN, FineTuning(), tmp_path, callbacks=callbacks, stream_options={"epochs_per_task": EPOCHS})


def test_a_checkpoint_names_the_methods_and_their_order(tmp_path):
    run = train(PLAIN, PROMPTS["one"](), tmp_path, callbacks=[ovor()], stream_options={"epochs_per_task": EPOCHS})
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(
        ValueError, match=r"made with OnePrompt \+ VirtualOutlierRegularizer, but `callbacks` has OnePrompt;"
    ):
        lightning_cl.restore(tmp_path / "last.ckpt", PLAIN.build("adamw", 0.0), [PROMPTS["one"]()])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", [PROMPTS["dual"], lambda: APER(**APER.small)])
def test_two_methods_that_adapt_the_backbone_are_refused(other, order, tmp_path):
    one, two = [PROMPTS["one"](), other()][::order]
    words = f"{type(one).__name__} and {type(two).__name__} each freeze the backbone .* use one of them"
    with pytest.raises(ValueError, match=words):
        train(PLAIN, one, tmp_path, callbacks=[two])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("method", [EWC, GPM, L2SP, LwF, MAS, SynapticIntelligence, FeatureDistillation, LGCL])
def test_what_changes_training_is_refused_beside_what_trains_nothing(method, order, tmp_path):
    one, two = [method(**method.small), PrototypeClassifier()][::order]
    words = f"{method.__name__} changes how the model is trained, but PrototypeClassifier trains nothing"
    with pytest.raises(ValueError, match=words):
        train(PLAIN, one, tmp_path, callbacks=[two])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("method", [APER, MVP, TEEN])
def test_the_regulariser_is_refused_beside_what_makes_the_logits(method, order, tmp_path):
    one, two = [method(**method.small), ovor()][::order]
    with pytest.raises(ValueError, match=f"{method.__name__} makes the logits in its own way|stands before MVP"):
        train(PLAIN, one, tmp_path, callbacks=[two])


@pytest.mark.parametrize("first", ["method", "finetuning"])
@pytest.mark.parametrize("method", [PROMPTS["one"], PrototypeClassifier])
def test_a_callback_that_thaws_the_backbone_is_refused_beside_a_method_that_freezes_it(method, first, tmp_path):
    made = [method(), BackboneFinetuning(unfreeze_backbone_at_epoch=1)]
    trainer = Trainer(callbacks=made[:: 1 if first == "method" else -1], logger=False, accelerator="cpu")
    name = type(made[0]).__name__
    with pytest.raises(
        ValueError, match=f"BackboneFinetuning makes layers trainable .*, but {name} keeps the backbone"
    ):
        trainer.fit(SPLIT.build("adamw", 0.0), datamodule=make_stream())


def test_a_callback_that_thaws_the_backbone_works_beside_fine_tuning(tmp_path):
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    start = SPLIT.build("adamw", 0.0).backbone.state_dict()
    moved = train(SPLIT, FineTuning(), tmp_path, callbacks=[finetuning]).module.backbone.state_dict()
    assert not torch.equal(moved["blocks.0.attn.qkv.weight"], start["blocks.0.attn.qkv.weight"])
