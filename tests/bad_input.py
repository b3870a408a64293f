"""What people get wrong: one action each, for :mod:`test_bad_input`, which checks what they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from tiny import tiny_vit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_cl import callbacks as C
from lightning_cl import datamodules as D

CLASSES = 6
Action = Callable[[Path], Any]


class Module(LightningModule):
    """A classifier as a user writes it; options spoil it."""

    def __init__(self, outputs: int = CLASSES, vit: bool = False, **spoilt: Any) -> None:
        super().__init__()
        self.net: Any = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU())
        self.fc = nn.Linear(16, outputs)
        if vit:
            self.net, self.fc = tiny_vit(num_classes=outputs).float(), nn.Identity()
        if spoilt.get("second_head"):
            self.other = nn.Linear(16, outputs)
        self.automatic_optimization = not spoilt.get("manual", False)
        self.loss = spoilt.get("loss", 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.net(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss * F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.01)


class Headlong(Module):
    """Calls its parts in the steps; Lightning's own ``forward`` is left."""

    forward = LightningModule.forward

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.fc(self.net(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.fc(self.net(batch[0]))


class Silent(Module):
    """Has no validation."""

    validation_step = LightningModule.validation_step


class Plain(LightningDataModule):
    """Is no stream."""

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.long)), 2)


def images(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(labels)
    return np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), labels


def source(labels: Any = None, **options: Any) -> D.ArraySource:
    labels = np.repeat(np.arange(CLASSES), 6) if labels is None else labels
    test = np.arange(int(np.max(labels)) + 1)
    return D.ArraySource(images(labels), images(test), augment="none", **options)


def stream(scenario: Any = None, **options: Any) -> D.ContinualDataModule:
    data = options.pop("source", None) or source()
    return D.ContinualDataModule(data, scenario or D.ClassIncremental(num_tasks=3), **{"batch_size": 6, **options})


def fit(
    *callbacks: Any,
    module: Any = None,
    data: Any = None,
    folder: Path | None = None,
    ckpt_path: Any = None,
    **trainer: Any,
) -> Trainer:
    options = {
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    fitted = Trainer(**{**options, **trainer}, callbacks=list(callbacks))
    fitted.fit(module or Module(), datamodule=data or stream(), ckpt_path=ckpt_path)
    return fitted


def checkpoint(folder: Path, *callbacks: Any, data: Any = None) -> Path:
    """Of a run of one step."""
    fit(*callbacks, data=data, max_steps=1, limit_val_batches=0).save_checkpoint(folder / "run.ckpt")
    return folder / "run.ckpt"


def resumed_on(folder: Path, other: Any, *callbacks: Any) -> None:
    fit(*callbacks, data=other, ckpt_path=checkpoint(folder, C.FineTuning()))


def resumed_in_mid_epoch(folder: Path, other: Any) -> None:
    saving = C.ContinualCheckpoint(dirpath=str(folder))
    fit(C.FineTuning(), saving, max_steps=1, limit_val_batches=0, enable_checkpointing=True)
    fit(C.FineTuning(), data=other, ckpt_path=folder / "last.ckpt")


def with_vit(*callbacks: Any, **options: Any) -> None:
    fit(*callbacks, module=Module(vit=True), **options)


class Unpaired(D.ArraySource):
    """Forgets the labels."""

    def item(self, split: Any, index: int) -> Any:
        return super().item(split, index)[:1]


def no_folder(folder: Path) -> None:
    (folder / "file").write_text("")
    fit(C.ContinualCheckpoint(dirpath=str(folder / "file")), folder=folder, enable_checkpointing=True)


#: Every entry: what was done wrong, the kind of error, and words that the message must have.
CASES: dict[str, tuple[Action, type[Exception], str]] = {
    # ------------------------------------------------------------------ the stream
    "tasks do not divide the classes": (
        lambda _: stream(D.ClassIncremental(num_tasks=4)).setup(),
        ValueError,
        r'`num_tasks` is 4 but there are 6 classes.*remainder="first"',
    ),
    "more tasks than classes": (
        lambda _: stream(D.ClassIncremental(num_tasks=7)).setup(),
        ValueError,
        "`num_tasks` is 7 but there are 6 classes; use at most 6",
    ),
    "a class without samples": (
        lambda _: stream(source=source([0, 0, 2, 2])).setup(),
        ValueError,
        "class ids have no training samples: 1",
    ),
    "labels that are no integers": (
        lambda _: stream(source=source([0.5, 1.0, 2.0])).setup(),
        ValueError,
        "must be integers",
    ),
    "a batch size of 0": (lambda _: stream(batch_size=0), ValueError, "`batch_size` is 0; give a number of samples"),
    "epochs for another number of tasks": (
        lambda _: stream(epochs_per_task=[1, 2]).setup(),
        ValueError,
        "`epochs_per_task` has 2 entries but the stream has 3 tasks",
    ),
    "more epochs than the schedule": (
        lambda _: fit(max_epochs=9),
        ValueError,
        "`max_epochs` is 9 but the schedule has 3 epochs",
    ),
    "a validation share of 1": (
        lambda _: stream(val_split=1.0).setup(),
        ValueError,
        r"`val_split` is 1.0; give a fraction of the training data in \(0, 1\)",
    ),
    "data without domains": (
        lambda _: stream(D.DomainIncremental()).setup(),
        ValueError,
        "`DomainIncremental` needs a domain per sample.*or use `ClassIncremental`",
    ),
    "a batch without a target": (
        lambda _: fit(C.PrototypeClassifier(), data=stream(source=Unpaired(images(range(6)), images(range(6))))),
        ValueError,
        "without a target; give .inputs, targets. or a dictionary",
    ),
    # ------------------------------------------------------------------ online and few-shot streams
    "a percentage above 100": (
        lambda _: D.SiBlurry(disjoint_class_pct=120),
        ValueError,
        "`disjoint_class_pct` is 120",
    ),
    "a negative percentage": (
        lambda _: D.IBlurry(blurry_sample_pct=-1),
        ValueError,
        "`blurry_sample_pct` is -1",
    ),
    "more blurry tasks than classes": (
        lambda _: stream(D.SiBlurry(num_tasks=9)).setup(),
        ValueError,
        "`num_tasks` is 9",
    ),
    "an online stream in two epochs": (
        lambda _: stream(D.SiBlurry(num_tasks=2), epochs_per_task=2).setup(),
        ValueError,
        "SiBlurry is an online stream.*set `epochs_per_task=1`",
    ),
    "several updates on a shuffled stream": (
        lambda _: stream(updates_per_batch=3).setup(),
        ValueError,
        "`updates_per_batch` is 3, but ClassIncremental",
    ),
    "sessions that do not fit": (
        lambda _: stream(D.FewShot(4, 3, 1)).setup(),
        ValueError,
        "is no multiple of 3",
    ),
    "more shots than samples": (
        lambda _: stream(D.FewShot(4, 1, 50)).setup(),
        ValueError,
        "fewer than `shots`=50 training samples",
    ),
    "file lists for images without names": (
        lambda folder: (
            (folder / "t0.json").write_text('[{"klass": "a", "file_name": "train/a/1.png", "label": 0}]'),
            stream(D.BlurryFileLists(str(folder / "t{task}.json"))).setup(),
        ),
        ValueError,
        "does not name its images",
    ),
    # ------------------------------------------------------------------ the module
    "a head that is too small": (
        lambda _: fit(C.FineTuning(), module=Module(outputs=4)),
        ValueError,
        r"with 6 outputs.*fc \(16 -> 4\).*Give the model 6 outputs",
    ),
    "two heads": (
        lambda _: fit(C.FineTuning(), module=Module(second_head=True)),
        ValueError,
        r"fc \(16 -> 6\), other \(16 -> 6\); choose one with `head=",
    ),
    "a head that is not there": (
        lambda _: fit(C.FineTuning(head="net.head")),
        ValueError,
        "`head='net.head'` is not a part of the module; did you mean",
    ),
    "prompts without a ViT": (
        lambda _: fit(C.CODAPrompt()),
        ValueError,
        "no transformer that prompts can be put into",
    ),
    "manual optimisation where a term is added": (
        lambda _: fit(C.L2P(pool_size=6, prompt_length=2, top_k=2), module=Module(vit=True, manual=True)),
        ValueError,
        "optimises manually; set `automatic_optimization = True`",
    ),
    "a loss that becomes NaN": (
        lambda _: fit(module=Module(loss=float("nan"))),
        FloatingPointError,
        "not finite in task 0, epoch 0.*step",
    ),
    "class means of a module without forward": (
        lambda _: fit(C.PrototypeClassifier(), module=Headlong()),
        ValueError,
        r"`Headlong` has no `forward`.*define `forward\(self, images\)`",
    ),
    "an evaluation without a validation": (
        lambda _: fit(C.ContinualEvaluation(), module=Silent()),
        ValueError,
        "validation_step",
    ),
    # ------------------------------------------------------------------ methods
    "no stream but loaders": (
        lambda _: fit(C.FineTuning(), data=Plain()),
        ValueError,
        "needs a stream, but the Trainer was given a Plain",
    ),
    "a layer beyond the depth": (
        lambda _: with_vit(C.CODAPrompt(layers=(0, 9))),
        ValueError,
        r"prompt layers \[9\] do not exist: the ViT has 6",
    ),
    "a pool smaller than top-k": (
        lambda _: with_vit(C.L2P(pool_size=3, top_k=5)),
        ValueError,
        "`top_k` is 5 but the pool has 3 prompts; use at most 3",
    ),
    "more tasks than experts": (
        lambda _: with_vit(C.DualPrompt(pool_size=2)),
        ValueError,
        "3 tasks but the pool only 2 experts",
    ),
    "two prompt methods": (
        lambda _: with_vit(C.DualPrompt(), C.CODAPrompt()),
        ValueError,
        "DualPrompt and CODAPrompt each freeze the backbone .* use one of them",
    ),
    "the same method twice": (
        lambda _: fit(C.FineTuning(), C.FineTuning()),
        ValueError,
        "a module takes a method once",
    ),
    "fewer samples than neighbours": (
        lambda _: with_vit(C.OnePrompt(), C.VirtualOutlierRegularizer(neighbours=500), data=stream(epochs_per_task=2)),
        ValueError,
        "fewer than the 500 that virtual outliers are made with",
    ),
    "a memory smaller than its batch": (
        lambda _: C.ExperienceReplay(memory_size=8, batch_size=16),
        ValueError,
        "cannot fill a batch of 16",
    ),
    "replay beside a method that trains nothing": (
        lambda _: fit(C.PrototypeClassifier(), C.ExperienceReplay(memory_size=8, batch_size=4)),
        ValueError,
        "nothing would be trained; use one or the other",
    ),
    "a share above 1": (lambda _: C.TEEN(alpha=2.0), ValueError, "`alpha` is 2.0"),
    "a mask of an unknown kind": (
        lambda _: C.FineTuning(train_mask="new"),
        ValueError,
        "`train_mask` is 'new'; give",
    ),
    # ------------------------------------------------------------------ evaluation
    "an evaluation period of 0": (
        lambda _: C.AnytimeEvaluation(every_n_samples=0),
        ValueError,
        "`every_n_samples` is 0",
    ),
    "a subset smaller than the classes": (
        lambda _: fit(C.AnytimeEvaluation(subset=3), data=stream(D.SiBlurry(num_tasks=2))),
        ValueError,
        "`subset` is 3 but the evaluation data have 6 classes",
    ),
    "a task's end that is not validated": (
        lambda _: fit(C.ContinualEvaluation(), check_val_every_n_epoch=2),
        ValueError,
        "does not validate the last epoch of",
    ),
    "forward transfer without a baseline": (
        lambda _: fit(C.ContinualEvaluation(forward_transfer=True)),
        ValueError,
        'evaluate_on="all"',
    ),
    # ------------------------------------------------------------------ checkpoints
    "a checkpoint of another stream": (
        lambda folder: resumed_on(folder, stream(D.ClassIncremental(num_tasks=2)), C.FineTuning()),
        ValueError,
        "hash [0-9a-f]{12}.*hash [0-9a-f]{12}",
    ),
    "a checkpoint of other classes": (
        lambda folder: resumed_on(folder, stream(source=source(class_names=list("abcdef"))), C.FineTuning()),
        ValueError,
        "hash [0-9a-f]{12}",
    ),
    "a checkpoint of another method": (
        lambda folder: resumed_on(folder, stream(), C.PrototypeClassifier()),
        ValueError,
        "was made with FineTuning, but this module has PrototypeClassifier",
    ),
    "a checkpoint with a method, without it": (
        lambda folder: resumed_on(folder, stream()),
        ValueError,
        "made with a continual-learning method",
    ),
    "another batch size in mid-epoch": (
        lambda folder: resumed_in_mid_epoch(folder, stream(batch_size=4)),
        ValueError,
        r"middle of an epoch, after 1 batches with a global batch size of 6 \(here 4\).*go on with the same settings",
    ),
    "a folder that cannot be written": (no_folder, OSError, "cannot write the checkpoint .*last.ckpt.*dirpath="),
}
