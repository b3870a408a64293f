"""Makes the golden checkpoints: what this version of lightning_cl writes, which all later versions must read.

Run it once for a release, from the repository's root, and commit what it adds (less than 200 kB together)::

    python tests/data/golden/make_golden.py

Files of earlier versions are never made again. For each run there are ``<version>-<name>.ckpt`` (in the middle of the
second of two tasks), ``<version>-<name>.safetensors`` (what ``save_method`` made of it) and ``<version>-<name>.pt``
with the predictions of the restored model, the predictions after the run went on to its end, and the accuracy matrix.

Images, labels and weights come from formulas, not from random numbers, so that they are the same everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import lightning_cl
from lightning_cl.callbacks import CODAPrompt, ContinualEvaluation, ContinualMethod, PrototypeClassifier
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule

FOLDER = Path(__file__).resolve().parent
METHODS: dict[str, Callable[[], list[ContinualMethod]]] = {
    "coda_prompt": lambda: [CODAPrompt(pool_size=4, prompt_length=2, layers=(0, 1), ortho_weight=0.1)],
    "prototypes": lambda: [PrototypeClassifier()],
}
NAMES = ("ant", "bee", "cat", "dog")
#: Three batches an epoch and two epochs a task; the checkpoint is written after the second batch of task 1.
STOP_AT = 8


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """Numbers in [-1, 1] that follow no simple pattern."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) ** 1.5 + phase).float().view(shape)


def pictures(labels: Tensor, phase: float) -> Tensor:
    """``(N, 1, 8, 8)`` in [0, 1]: a pattern for each class, with something of their own."""
    patterns = waves(len(NAMES), 1, 8, 8, phase=0.3)
    return (0.5 + 0.3 * patterns[labels] + 0.2 * waves(len(labels), 1, 8, 8, phase=phase)).clamp(0, 1)


class GoldenModel(LightningModule):
    """A ViT of two blocks, with weights from a formula."""

    def __init__(self) -> None:
        super().__init__()
        self.net = VisionTransformer(
            img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=2, num_heads=2, mlp_ratio=1.0, num_classes=4
        )
        with torch.no_grad():
            for number, (name, parameter) in enumerate(self.net.named_parameters()):
                scale = 2 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
                parameter.copy_(scale * waves(*parameter.shape, phase=float(number)))
                if "norm" in name and name.endswith("weight"):
                    parameter.add_(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.03)


def stream(class_names: Sequence[str] = NAMES, class_order: Sequence[int] = (2, 0, 3, 1)) -> ContinualDataModule:
    """Two tasks of two classes, nine images each."""
    train, test = torch.arange(36) % 4, torch.arange(16) % 4
    source = ArraySource((pictures(train, 1.0), train), (pictures(test, 2.0), test), class_names=list(class_names))
    return ContinualDataModule(source, ClassIncremental(2, class_order=class_order), batch_size=6, epochs_per_task=2)


def images() -> Tensor:
    """What predictions are made of."""
    return pictures(torch.arange(8) % 4, 3.0)


def fit(
    methods: Sequence[ContinualMethod], ckpt_path: Path | None = None, stop: Sequence[Callback] = (), **options: Any
) -> Trainer:
    """A run, or the rest of one; ``options`` go to :func:`stream`."""
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*methods, ContinualEvaluation(report=False, print_table=False), *stop],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(GoldenModel(), datamodule=stream(**options), ckpt_path=ckpt_path)
    return trainer


@torch.no_grad()
def results(trainer: Trainer) -> dict[str, Tensor]:
    """Predictions at the end, and the counts of the accuracy matrix."""
    evaluation = next(c for c in trainer.callbacks if isinstance(c, ContinualEvaluation))
    return {"final": trainer.lightning_module.eval()(images()), "correct": evaluation.correct["class_il"]}


class Save(Callback):
    """Writes the checkpoint and ends the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == STOP_AT:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def make(folder: Path = FOLDER) -> None:
    """Write the files of this version."""
    for name, methods in METHODS.items():
        path = folder / f"{lightning_cl.__version__}-{name}.ckpt"
        if path.exists():
            raise FileExistsError(f"{path.name} exists; golden files are never made again.")
        fit(methods(), stop=[Save(path)])
        restored = lightning_cl.restore(path, GoldenModel(), methods())
        lightning_cl.save_method(path.with_suffix(".safetensors"), restored)
        with torch.no_grad():
            expected = {"restored": restored(images()), **results(fit(methods(), path))}
        torch.save({**expected, "hash": stream().info.fingerprint}, path.with_suffix(".pt"))


if __name__ == "__main__":
    make()
