"""TEEN in a run: the base session trains, later sessions only count."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cl.callbacks import TEEN, ContinualCallback, ContinualEvaluation
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, FewShot

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES, BASE, SHOTS = 10, 6, 3


class Module(LightningModule):
    """Convolution with batch statistics; momentum and weight decay, which move weights without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12))
        self.body(torch.zeros(2, 1, 8, 8))
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)


def make_stream(scenario: Any = None) -> ContinualDataModule:
    """Each class is a bright spot at its own place, with noise."""
    rng, splits = np.random.default_rng(0), []
    for each in (20, 6):
        labels = np.repeat(np.arange(CLASSES), each)
        images = rng.integers(0, 60, (len(labels), 8, 8))
        images[np.arange(len(labels)), labels // 5 * 4 + 1, labels % 5 + 1] += 180
        splits.append((images.astype(np.uint8), labels))
    source = ArraySource(*splits, augment="none")
    return ContinualDataModule(
        source, scenario or FewShot(BASE, 2, SHOTS), batch_size=16, epochs_per_task=1 if scenario else [6, 1, 1]
    )


class Watch(ContinualCallback):
    """Copies of the module at every task's end, after its means were taken."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_task_end(self, trainer: Trainer, pl_module: Any, task: Any) -> None:
        self.states.append(copy.deepcopy(pl_module.state_dict()))


def run(**options: Any) -> tuple[Any, Watch, ContinualEvaluation, ContinualDataModule]:
    seed_everything(0, verbose=False)
    watch, evaluation, stream = Watch(), ContinualEvaluation(report=False, print_table=False), make_stream()
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[TEEN(**options), watch, evaluation],
    )  # fmt: skip
    module = Module()
    trainer.fit(module, datamodule=stream)
    return module, watch, evaluation, stream


def test_nothing_is_trained_after_the_base_session():
    _, watch, evaluation, _ = run(alpha=0.5)
    first, *later = watch.states
    for state in later:
        changed = [name for name, value in state.items() if not torch.equal(value, first[name])]
        assert set(changed) <= {
            "continual.parts.teen.bank.sums",
            "continual.parts.teen.bank.counts",
            "continual.mask.train_allowed",
            "continual.mask.eval_allowed",
        }
    untrained = Module().state_dict()
    assert not torch.equal(first["body.0.weight"], untrained["body.0.weight"])
    assert evaluation.matrix()[-1].min() > 0.3  # chance is 0.1


def test_accuracy_on_the_base_classes_alone_is_unchanged_by_later_sessions():
    _, _, evaluation, _ = run(alpha=0.5)
    assert len(set(evaluation.matrix("task_il")[:, 0].tolist())) == 1


def test_the_means_are_those_of_the_shots_on_evaluation_transforms():
    module, _, _, stream = run(alpha=0.5)
    assert module.teen.counts.tolist() == [20.0] * BASE + [float(SHOTS)] * (CLASSES - BASE)
    assert module.teen.base.nonzero().flatten().tolist() == list(range(BASE))
    module.eval()
    images, labels = stream.batch(torch.cat(list(stream.layout.train_index)), "eval")
    with torch.no_grad():
        features = module.body(images).double()
    means = torch.stack([features[labels == c].mean(0) for c in range(CLASSES)])
    torch.testing.assert_close(module.teen.means, means, rtol=1e-5, atol=1e-6)


def test_features_can_be_taken_as_they_are():
    _, watch, _, _ = run(alpha=0.0, train_base=False)
    seed_everything(0, verbose=False)
    fresh = Module().state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in watch.states[-1].items() if name in fresh)


def test_a_stream_without_a_base_session_is_refused():
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[TEEN()])
    with pytest.raises(ValueError, match=r"TEEN learns its features .* has 2 classes and a later one 8; use"):
        trainer.fit(Module(), datamodule=make_stream(ClassIncremental(classes_per_task=[2, CLASSES - 2])))
