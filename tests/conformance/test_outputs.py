"""Modules whose network answers with more than logits train by every method that works on any network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import lightning_cl
from lightning_cl.callbacks import TAME, ContinualMethod, PODNet

from .methods import METHODS, THOROUGH, make, takes
from .output_modules import AUXILIARY, HF_DECODER, HF_IMAGES, HF_TEXTS
from .runs import assert_same_bits, attached, train

CASES = [HF_IMAGES, HF_TEXTS, HF_DECODER, AUXILIARY]
ANY_NETWORK = [
    method
    for method in METHODS
    if method.backbones() == ContinualMethod.backbones() and "first_task" not in method.small  # adapters in timm's ViT
]
#: What methods that compare the maps of stages say of a network that has none, or whose stages have other names.
NO_MAPS = {HF_TEXTS: "so it reads words", HF_DECODER: "so it reads words", AUXILIARY: "no stages were found"}


def tries() -> Iterator[Any]:
    """Thorough methods on every case that they take, one of them at once and the others slowly; others on one."""
    for place, method in enumerate(ANY_NETWORK):
        cases = [case for case in CASES if not (takes(method, "stages") and case in NO_MAPS)]
        if takes(method, "at"):  # of linear layers in numbered blocks
            cases = [case for case in cases if case is not AUXILIARY]
        if method.needs_images:
            cases = [case for case in cases if case not in (HF_TEXTS, HF_DECODER)]
        if takes(method, "views"):  # of tensors of images
            cases = [case for case in cases if case is not HF_IMAGES]
        if method.stream_kind != "labelled":  # which the texts' own stream is
            cases = [case for case in cases if case.stream is None]
        for number, case in enumerate(cases):
            at_once = place % len(cases) == number
            if at_once or method in THOROUGH:
                marks = () if at_once else pytest.mark.slow
                yield pytest.param(method, case, id=f"{case.name}-{method.__name__}", marks=marks)


on_outputs = pytest.mark.parametrize(("method", "case"), [*tries()])


@on_outputs
def test_what_is_counted_is_what_the_module_itself_measures(method, case, finished):
    run = finished(method, case)
    assert torch.equal(run.evaluation.total > 0, run.evaluated())
    right, total = run.evaluation.correct["class_il"][-1].sum(), run.evaluation.total[-1].sum()
    assert float(run.trainer.callback_metrics["val_acc"]) == pytest.approx(float(right / total), abs=1e-6)
    assert len(run.watcher.losses) == run.trainer.global_step
    assert all(map(math.isfinite, run.watcher.losses))
    assert run.watcher.moved_rows == set()
    assert run.watcher.stuck == set() or method is TAME  # whose step that finds a shift trains nothing
    heads = [p for name, p in run.module.named_parameters() if "aux" in name]
    assert all(bool(p.isfinite().all()) for p in heads)


@on_outputs
def test_a_checkpoint_opens_without_a_trainer(method, case, finished, tmp_path):
    run = finished(method, case)
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    restored = lightning_cl.restore(tmp_path / "last.ckpt", case.build("adamw", 0.0), [make(method)])
    assert_same_bits(dict(restored.state_dict()), dict(run.module.state_dict()))


@pytest.mark.parametrize("case", NO_MAPS, ids=lambda case: case.name)
@pytest.mark.parametrize("method", [m for m in ANY_NETWORK if takes(m, "stages")], ids=lambda m: m.__name__)
def test_a_network_without_maps_is_refused_before_it_is_trained(method, case):
    with pytest.raises(ValueError, match=rf"{NO_MAPS[case]}.*`stages="):
        attached(case, make(method))


def test_stages_of_other_names_are_named(tmp_path):
    run = train(AUXILIARY, PODNet(stages=["net.stem", "net.body"]), tmp_path)
    assert run.trainer.callback_metrics["spatial"] > 0
