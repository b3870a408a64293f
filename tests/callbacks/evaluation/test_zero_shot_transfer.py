"""Accuracy on classes that are never trained: measured by hand, without a trace in training, and refused overlaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from conformance.modules import TINY_CLIP
from lightning.pytorch import Trainer, seed_everything
from tiny import shaken

from callbacks.language.test_cpe_clip_runs import make_stream
from lightning_cl.callbacks import ZSCL, MSGCoOp, PromptSRC, ZeroShotTransfer
from lightning_cl.datamodules import ArraySource
from lightning_cl.models import CLIPClassifier
from lightning_cl.nn.clip_towers import encode_texts

pytestmark = pytest.mark.filterwarnings("ignore")
OTHERS = ("wolf", "tiger", "rose")


def pictures() -> Any:
    return np.random.default_rng(1).integers(0, 255, (30, 16, 16), np.uint8)


def other_source(names: Any = OTHERS) -> ArraySource:
    images, labels = pictures(), np.repeat(np.arange(3), 10)
    return ArraySource((images, labels), (images, labels), class_names=names, mean=(0.0,), std=(1.0,), augment="none")


def fitted(method: Any, measure: Any, train: Any = "none") -> Any:
    seed_everything(0, verbose=False)
    model = CLIPClassifier(TINY_CLIP, None, 10, train=train, optimizer="sgd", lr=0.02)
    shaken(model.net)
    trainer = Trainer(
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[method, *measure],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_time=None,
    )
    trainer.fit(model, datamodule=make_stream(epochs_per_task=[2, 1, 1]))
    return model


@torch.no_grad()
def accuracy_by_hand(model: Any, rows: torch.Tensor) -> float:
    model.eval()
    images = torch.from_numpy(pictures())[:, None] / 255
    features = F.normalize(model.net.encode_image(model._prepared(images)), dim=1)
    return float(((features @ rows.T).argmax(1) == torch.arange(3).repeat_interleave(10)).double().mean())


@pytest.mark.parametrize(
    ("method", "train"),
    [
        (lambda: PromptSRC(2, frozen_templates=["a {}."]), "none"),
        (lambda: MSGCoOp(2, 2), "none"),
        (lambda: ZSCL(2), "all"),
    ],
    ids=["PromptSRC", "MSGCoOp", "ZSCL"],
)
def test_what_is_measured_is_the_model_s_own_answer(method: Any, train: str) -> None:
    measure = ZeroShotTransfer(other_source(), batch_size=7)
    model = fitted(method(), [measure], train)
    tokens = open_clip.SimpleTokenizer(context_length=16)([f"{name}." for name in OTHERS])
    part = next(iter(model.continual.parts.values()))
    with torch.no_grad():
        if isinstance(method(), PromptSRC):
            rows = encode_texts(model.net, tokens[:, :14], part.prompts.language)
        elif isinstance(method(), MSGCoOp):
            contexts = part.prompts.language
            rows = torch.stack([encode_texts(model.net, tokens[:, :14], c[None]) for c in contexts]).mean(0)
        else:
            rows = F.normalize(model.net.encode_text(tokens), dim=1)
    facts = measure.report_facts()
    assert facts["after"][-1] == pytest.approx(accuracy_by_hand(model, rows))
    assert len(facts["after"]) == 3
    assert facts["lost"] == pytest.approx(facts["before"] - facts["after"][-1])


def test_it_leaves_no_trace() -> None:
    with_it = fitted(ZSCL(2), [ZeroShotTransfer(other_source())], "all").state_dict()
    without = fitted(ZSCL(2), [], "all").state_dict()
    assert all(torch.equal(with_it[name], value) for name, value in without.items())


def test_classes_of_the_stream_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trains 1 of the 3 classes that ZeroShotTransfer measures \('Bee'\)"):
        fitted(ZSCL(2), [ZeroShotTransfer(other_source(("wolf", "Bee", "rose")))], "all")
    with pytest.raises(ValueError, match="no place for the class name"):
        ZeroShotTransfer(other_source(), template="a photo")
