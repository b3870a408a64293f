"""Modules whose network answers with more than logits train by every method that works on any network."""

from __future__ import annotations

import math

import pytest
import torch

import lightning_cl

from .methods import METHODS, THOROUGH, make, takes
from .output_modules import AUXILIARY, HF_DECODER, HF_IMAGES, HF_TEXTS
from .runs import assert_same_bits
from .streams import NUM_TASKS

CASES = [HF_IMAGES, HF_TEXTS, HF_DECODER, AUXILIARY]
#: Those that put parameters into the backbone know timm's or open_clip's.
ANY_NETWORK = [
    method
    for method in METHODS
    if not method.adapts_backbone and method.family == "vit" and not takes(method, "stages")  # of maps or patches
]
on_outputs = pytest.mark.parametrize(
    ("method", "case"),
    [
        pytest.param(
            method,
            case,
            id=f"{case.name}-{method.__name__}",
            marks=() if place % len(CASES) == number else pytest.mark.slow,
        )
        for place, method in enumerate(ANY_NETWORK)
        for number, case in enumerate(CASES)
        if method in THOROUGH or place % len(CASES) == number
    ],
)


@on_outputs
def test_what_is_counted_is_what_the_module_itself_measures(method, case, finished):
    run = finished(method, case)
    measured = torch.ones(NUM_TASKS, NUM_TASKS, dtype=torch.bool).tril()
    assert torch.equal(run.evaluation.total > 0, measured)
    right, total = run.evaluation.correct["class_il"][-1].sum(), run.evaluation.total[-1].sum()
    assert float(run.trainer.callback_metrics["val_acc"]) == pytest.approx(float(right / total), abs=1e-6)
    assert len(run.watcher.losses) == run.trainer.global_step
    assert all(map(math.isfinite, run.watcher.losses))
    assert run.watcher.stuck == run.watcher.moved_rows == set()
    heads = [p for name, p in run.module.named_parameters() if "aux" in name]
    assert all(bool(p.isfinite().all()) for p in heads)


@on_outputs
def test_a_checkpoint_opens_without_a_trainer(method, case, finished, tmp_path):
    run = finished(method, case)
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    restored = lightning_cl.restore(tmp_path / "last.ckpt", case.build("adamw", 0.0), [make(method)])
    assert_same_bits(dict(restored.state_dict()), dict(run.module.state_dict()))
