"""MultiLane on samples with several labels and with one; what old classes keep, and what is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import train as train_single
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import (
    ContinualCallback,
    ContinualEvaluation,
    FineTuning,
    MultiLabelEvaluation,
    MultiLane,
)
from lightning_cl.datamodules import ContinualDataModule, MultiLabelIncremental, MultiLabelSource
from lightning_cl.metrics.functional.multi_label import average_precision
from lightning_cl.models import MultiLabelClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {**MultiLane.small, "multi_label": True}


def bars(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with some of six bright rows, and which these are."""
    generator = np.random.default_rng(seed)
    sets = generator.random((count, 6)) < 0.3
    sets[np.arange(count), generator.integers(0, 6, count)] = True
    images = generator.integers(0, 60, (count, 16, 16))
    for sample, label in zip(*sets.nonzero(), strict=True):
        images[sample, 2 * label + 2 : 2 * label + 4] += 180
    return images.astype(np.uint8), sets


def make_stream(**options: Any) -> ContinualDataModule:
    source = MultiLabelSource(bars(60, 0), bars(30, 1))
    return ContinualDataModule(source, MultiLabelIncremental(num_tasks=3), **{"batch_size": 16, **options})


class Classifier(MultiLabelClassifier):
    """With a network of a few thousand weights."""

    def __init__(self) -> None:
        super().__init__(backbone="vit_conformance", pretrained=False, num_classes=6, lr=0.01)


class Watch(ContinualCallback):
    """What every image's logits are after each task, and the labels that steps were given."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.logits, self.labels = images, list[Tensor](), list[tuple[int, Tensor]]()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.labels.append((trainer.datamodule.task_index, batch[1]))

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        mode = pl_module.training
        with torch.no_grad():
            self.logits.append(pl_module.eval()(self.images))
        pl_module.train(mode)


def fit(method: Any, folder: Any, *callbacks: Any, stream: Any = None) -> tuple[Any, Any]:
    seed_everything(0, verbose=False)
    module, stream = Classifier(), stream or make_stream(epochs_per_task=4)
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    Trainer(**options, callbacks=[method, *callbacks]).fit(module, datamodule=stream)
    return module, stream


def test_several_labels_from_the_source_to_the_report(tmp_path: Any) -> None:
    images = torch.rand(7, 1, 16, 16)
    watch, evaluation = Watch(images), MultiLabelEvaluation(print_table=False)
    module, stream = fit(MultiLane(**SMALL), tmp_path, watch, evaluation)
    own = stream.layout.info.classes_per_task
    for task, labels in watch.labels:
        others = [c for c in range(6) if c not in own[task]]
        assert labels[:, list(own[task])].any(dim=1).all()
        assert not labels[:, others].any()
    for task in range(2):
        old = [c for held in own[: task + 1] for c in held]
        assert torch.equal(watch.logits[task][:, old], watch.logits[2][:, old])  # bit for bit

    test = list(stream.val_dataloader())
    with torch.no_grad():
        logits = torch.cat([module.eval()(x) for x, _ in test])
    precisions = average_precision(logits, torch.cat([y for _, y in test]).bool())
    assert_close(evaluation.summary[2, 0], precisions.mean())
    assert_close(evaluation.matrix[2], torch.stack([precisions[list(held)].mean() for held in own]))
    assert_close(evaluation.summary[0, 1], evaluation.summary[0, 0] * 2 / 6)  # two of six classes are seen
    chance = stream.source.test_sets.double().mean()
    assert float(evaluation.summary[2, 0]) > chance + 0.2
    report = evaluation.build_report(module.trainer, module)
    assert report.facts["MultiLabelEvaluation"]["last_map"] == pytest.approx(float(precisions.mean()))
    assert any("mean average precisions" in note for note in report.notes)


def test_the_loss_is_a_mean_over_all_columns_or_over_those_of_the_task(tmp_path: Any) -> None:
    losses = {}

    class First(ContinualCallback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.setdefault(pl_module.continual.parts["multilane"].by_task, (float(outputs["loss"]), batch))

    for reduction in ("all", "task"):
        fit(MultiLane(**SMALL, reduction=reduction), tmp_path, First(), stream=make_stream(epochs_per_task=1))
    assert losses[True][0] == pytest.approx(3 * losses[False][0], rel=1e-5)


def test_one_label_a_sample(tmp_path: Any) -> None:
    run = train_single(PLAIN, MultiLane(**MultiLane.small), tmp_path)
    x = torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        logits = run.module.eval()(x)
        part = run.module.continual.parts["multilane"]
        for task in range(3):
            part.lanes._known = (task,)
            alone = run.module(x)
            columns = list(run.stream.info.classes_per_task[task])
            assert torch.equal(alone[:, columns], logits[:, columns])
    features = run.module.head_input(x)
    assert_close(features.norm(dim=1), torch.ones(len(features)))


def test_each_kind_of_labels_is_refused_by_what_is_for_the_other(tmp_path: Any) -> None:
    for method, words in (
        (FineTuning(), "FineTuning is for samples with one label, but MultiLabelSource has several"),
        (MultiLane(**MultiLane.small), "MultiLane is for samples with one label"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(method, tmp_path)
    with pytest.raises(ValueError, match="ContinualEvaluation counts right classes, but MultiLabelSource has several"):
        fit(MultiLane(**SMALL), tmp_path, ContinualEvaluation())
    with pytest.raises(
        ValueError, match="MultiLane is set up for samples with several labels, but ArraySource has one"
    ):
        train_single(PLAIN, MultiLane(**SMALL), tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MultiLane(selectors=-1), "`selectors` is -1; give at least 0"),
        (lambda: MultiLane(reduction="sum"), "`reduction` is 'sum'"),
        (lambda: MultiLabelEvaluation(threshold=1.0), r"`threshold` is 1.0; give a probability in \(0, 1\)"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
