"""Replay and class means with batches of every kind: what is remembered is what a batch is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batch_kinds import CLASSES, KINDS, WIDTH, Kind, Samples, image, label
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import default_collate

from lightning_cl.callbacks import EWC, PrototypeClassifier
from lightning_cl.callbacks.regularization import ewc
from lightning_cl.callbacks.regularization.anchor import fisher_of_task
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource
from lightning_cl.nn.replay.batches import leaves
from lightning_cl.training.batch import call_with

from .replay.replay_runs import DRAWN, Steps, replay

pytestmark = pytest.mark.filterwarnings("ignore")


class Any5(LightningModule):
    """Reads its own kind of batch; ``forward`` takes an image, or ids and their mask."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(WIDTH, CLASSES)
        self.words = nn.Embedding(CLASSES * 4, WIDTH)

    def forward(self, x: Any = None, **named: Tensor) -> Tensor:
        if x is not None:
            x = x[0] if isinstance(x, list) else x
            return self.fc(x.flatten(1))
        ids, mask = named.values()
        return self.fc((self.words(ids) * mask[..., None]).mean(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.kind.image is not None:
            return self(self.kind.image(batch)).clamp(-1, 1).square().mean()
        return self(**{k: v for k, v in batch.items() if k not in ("labels", "class")}).clamp(-1, 1).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def stream_of(kind: Kind) -> ContinualDataModule:
    data = Samples(kind)
    scenario = ClassIncremental(num_tasks=3, class_order="natural")
    return ContinualDataModule(DatasetSource(data, data), scenario, batch_size=5, batch_keys=kind.keys)


def fit(kind: Kind, *callbacks: Any) -> Any:
    torch.manual_seed(0)
    module, options = Any5(kind), {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", enable_model_summary=False, callbacks=list(callbacks), **options
    )
    trainer.fit(module, datamodule=stream_of(kind))
    return module


def assert_same(batch: Any, expected: Any) -> None:
    assert type(batch) is type(expected)
    for (path, part), (same, wanted) in zip(leaves(batch), leaves(expected), strict=True):
        assert path == same
        assert torch.equal(part, wanted) if isinstance(part, Tensor) else list(part) == list(wanted)


@pytest.mark.parametrize("store", ["index", "sample"])
@pytest.mark.parametrize("name", KINDS)
def test_replay_joins_whole_samples_of_every_kind(name, store):
    kind, steps = KINDS[name], Steps()
    method = replay(store=store)
    fit(kind, method, steps)
    numbers = {image(i).flatten()[0].item(): i for i in range(CLASSES * 4)}
    for batch, rows, joined in zip(steps.batches, steps.rows, steps.joined, strict=True):
        if kind.image is not None:
            seen = [numbers[value] for value in kind.image(batch).flatten(1)[:, 0].tolist()]
        else:
            seen = batch["ids" if kind.keys else "input_ids"][:, 0].tolist()
        assert_same(batch, default_collate([kind.item(i) for i in seen]))  # every part of a row is of one sample
        assert seen[: len(rows)] == rows.tolist()
        remembered = [] if joined is None else joined.labels.tolist()
        assert [label(i) for i in seen[len(rows) :]] == remembered
    assert max(len(joined.labels) for joined in steps.joined if joined is not None) == DRAWN


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.labelled])
def test_class_means_are_of_the_inputs_of_every_kind(name):
    kind = KINDS[name]
    module = fit(kind, PrototypeClassifier(distance="cosine", normalize=False))
    with torch.no_grad():
        batch = default_collate([kind.item(i) for i in range(CLASSES * 4)])
        if kind.image is not None:
            features = kind.image(batch).flatten(1)
        else:
            ids, mask = (batch[key] for key in (kind.keys[0] if kind.keys else ("input_ids", "attention_mask")))
            features = (module.words(ids) * mask[..., None]).mean(1)
    expected = features.double().view(CLASSES, -1, WIDTH).mean(1)
    torch.testing.assert_close(module.prototypes.means, expected)


@pytest.mark.parametrize("fisher", ["empirical", "true", "batch"])
@pytest.mark.parametrize("name", ["input_ids", "several named inputs", "pair"])
def test_the_pass_of_ewc_gives_every_part_of_the_inputs(name, fisher, monkeypatch):
    """The importance after the last task is that of the module's own logits, sample by sample."""
    found = []

    def remembered(module, data, kind):
        found.append(fisher_of_task(module, data, kind))
        batches = [(inputs, targets) for inputs, targets, _ in data.batches()]
        found.append((batches, {n: p.detach().clone() for n, p in module.named_parameters()}))
        return found[-2]

    monkeypatch.setattr(ewc, "fisher_of_task", remembered)
    module = fit(KINDS[name], EWC(fisher=fisher, strength=0.0))
    importance, (batches, weights) = found[-2:]
    module.load_state_dict(weights, strict=False)
    module.eval()
    total, count = torch.zeros_like(module.fc.weight), 0
    for inputs, targets in batches:
        logits = call_with(module, inputs).log_softmax(1)
        count += len(targets)
        if fisher == "batch":
            mean = -logits[range(len(targets)), targets].mean()
            total += len(targets) * torch.autograd.grad(mean, module.fc.weight)[0].square()
            continue
        for row, target in zip(logits, targets, strict=True):
            for chosen in range(CLASSES) if fisher == "true" else [target]:
                share = float(row[chosen].exp()) if fisher == "true" else 1.0
                if share:
                    gradient = torch.autograd.grad(row[chosen], module.fc.weight, retain_graph=True)[0]
                    total += share * gradient.square()
    assert_close(importance["fc.weight"], total / count)
    assert total.any()
