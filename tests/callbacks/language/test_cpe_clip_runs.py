"""CPE-CLIP over few-shot sessions: rates, momentum, and the published training loop typed beside it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from conformance.modules import TINY_CLIP
from lightning.pytorch import Trainer, seed_everything
from nn.test_clip_towers import image_loop, text_loop
from tiny import shaken
from torch.testing import assert_close

from callbacks.language.test_cpe_clip import CLASSES, NAMES, PROMPTS
from lightning_cl.callbacks import CPECLIP, ContinualCallback, ContinualEvaluation, PrototypeClassifier
from lightning_cl.datamodules import ArraySource, ContinualDataModule, FewShot
from lightning_cl.models import CLIPClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
BASE, WAYS, SHOTS = 6, 2, 3


def make_stream(**options: Any) -> ContinualDataModule:
    """Each class is a bright spot at its own place, with noise."""
    rng, splits = np.random.default_rng(0), []
    for each in (12, 4):
        labels = np.repeat(np.arange(CLASSES), each)
        images = rng.integers(0, 60, (len(labels), 16, 16))
        for i, c in enumerate(labels):
            images[i, 8 * (c // 5) :, 3 * (c % 5) : 3 * (c % 5) + 3] += 180
        splits.append((images.astype(np.uint8), labels))
    source = ArraySource(*splits, class_names=NAMES, mean=(0.0,), std=(1.0,), augment="none")
    options = {"batch_size": 16, "epochs_per_task": [6, 5, 5], **options}
    return ContinualDataModule(source, FewShot(BASE, WAYS, SHOTS), **options)


class Watch(ContinualCallback):
    """Rates and momenta at the first step of every epoch, and prompts at every task's end."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.momenta: list[int] = []
        self.prompts: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if trainer.fit_loop.batch_idx == 0:
            self.momenta.append(len(optimizer.state))

    def on_task_end(self, trainer: Trainer, pl_module: Any, task: Any) -> None:
        self.prompts.append(copy.deepcopy(pl_module.prompts.state_dict()))


def test_a_few_shot_run_in_the_published_setting():
    seed_everything(0, verbose=False)
    module = CLIPClassifier(
        TINY_CLIP, None, CLASSES, optimizer="sgd", lr=0.001, weight_decay=1e-5, lr_schedule="cpe_clip"
    )
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    watch, evaluation = Watch(), ContinualEvaluation(report=False, print_table=False)
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[CPECLIP(), watch, evaluation],
    )  # fmt: skip
    trainer.fit(module, datamodule=make_stream())
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trained == {f"{PROMPTS}.{name}" for name in ("language", "projection.weight", "projection.bias")}
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters() if name in before)
    warmup = [0.001 + 0.00198 * epoch for epoch in range(6)]
    assert watch.rates == pytest.approx(warmup + warmup[:5] + warmup[:5])
    assert watch.momenta == [0, 3, 3, 3, 3, 3] + [0, 3, 3, 3, 3] * 2
    moved = [[not torch.equal(a[n], b[n]) for n in a] for a, b in zip(watch.prompts, watch.prompts[1:], strict=False)]
    assert all(map(all, moved))
    assert int(module.prompts.task_counter) == 2
    assert evaluation.total[-1].tolist() == [BASE * 4, WAYS * 4, WAYS * 4]


class Seen(ContinualCallback):
    """What the prompts were before the first step, and the batches of each task and epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.start = {name: p.detach().clone() for name, p in pl_module.prompts.named_parameters()}
        self.epochs: list[tuple[int, list[Any]]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.epochs.append((trainer.datamodule.task_index, []))

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.epochs[-1][1].append((pl_module._prepared(batch[0]), batch[1]))


def published(clip, start, epochs, tasks):
    """The official training loop, typed from its description: nothing trimmed, chosen, remembered or scaled early."""
    g, weight, bias = trained = [start[name].clone().requires_grad_() for name in start]
    texts = open_clip.SimpleTokenizer(context_length=16)([f"{name.replace('_', ' ')}." for name in NAMES])
    current = None
    for task, batches in epochs:
        if task != current:
            current, epoch, old = task, 0, sum(len(held) for held in tasks[:task])
            seen = old + len(tasks[task])
            optimizer = torch.optim.SGD(trained, lr=0.00325, momentum=0.9, weight_decay=1e-5)
        optimizer.param_groups[0]["lr"] = 0.001 + (0.1 - 0.001) * epoch / 50
        for images, labels in batches:
            text_features = text_loop(clip, texts[:seen], g, "replace")
            image_features = image_loop(clip.visual, images, g @ weight.T + bias, "accumulate")
            logits = 100 * F.normalize(image_features, dim=1) @ text_features.T
            logits[:, :old] = -9999
            optimizer.zero_grad()
            F.cross_entropy(logits, labels).backward()
            for p in trained if task else ():
                p.grad *= (seen - old) / seen
            optimizer.step()
        epoch += 1
    return {name: p.detach() for name, p in zip(start, trained, strict=True)}


def test_a_run_ends_with_the_prompts_of_the_published_training_loop():
    seed_everything(0, verbose=False)
    module = CLIPClassifier(
        TINY_CLIP, None, CLASSES, optimizer="sgd", lr=0.001, weight_decay=1e-5, lr_schedule="cpe_clip"
    )
    shaken(module.net)
    stream, seen = make_stream(batch_size=[16, 4, 4], epochs_per_task=[2, 3, 3]), Seen()
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, precision="64-true", limit_val_batches=0,
        callbacks=[CPECLIP(), seen],
    )  # fmt: skip
    trainer.fit(module, datamodule=stream)
    assert [(task, len(batches)) for task, batches in seen.epochs] == [(0, 5)] * 2 + [(1, 2)] * 3 + [(2, 2)] * 3
    expected = published(module.net, seen.start, seen.epochs, stream.info.classes_per_task)
    for name, value in module.prompts.named_parameters():
        assert (value - seen.start[name]).abs().max() > 1e-3, name
        assert_close(value.detach(), expected[name], rtol=1e-8, atol=1e-10, msg=name)


def test_another_method_that_makes_the_logits_is_refused():
    trainer = Trainer(max_epochs=-1, logger=False, accelerator="cpu", callbacks=[CPECLIP(), PrototypeClassifier()])
    with pytest.raises(ValueError, match="CPECLIP and PrototypeClassifier each make the logits"):
        trainer.fit(CLIPClassifier(TINY_CLIP, None, CLASSES), datamodule=make_stream())
