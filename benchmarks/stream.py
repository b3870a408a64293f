"""Plain fine-tuning through the stream machinery against a hand-written torch loop over the same batches.

    python benchmarks/stream.py

Both train the same model from the same weights on the same images in the same order; they take turns, and the figure
is the median of the ratios of a pair's times. The run through `Trainer.fit` has no logger and no validation, like the
loop, but pays for everything else: set-up, samplers, task boundaries, hooks.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.sampling import TrainPlan

CLASSES, TASKS = 10, 5


class Classifier(LightningModule):
    """What a user would have."""

    def __init__(self, model: str, image_size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = timm.create_model(model, num_classes=CLASSES, img_size=image_size)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def stream(images: torch.Tensor, labels: torch.Tensor, batch_size: int, epochs: int) -> ContinualDataModule:
    source = ArraySource((images, labels), (images[:CLASSES], labels[:CLASSES]))
    scenario = ClassIncremental(TASKS, class_order="natural")
    return ContinualDataModule(
        source, scenario, batch_size, epochs, train_transform=to_float, eval_transform=to_float, pin_memory=False
    )


def to_float(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 255


def through_the_stream(data: ContinualDataModule, model: Classifier) -> float:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        max_epochs=-1,
    )
    start = time.perf_counter()
    trainer.fit(model, datamodule=data)
    return time.perf_counter() - start


def by_hand(data: ContinualDataModule, model: Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The loop that one would write, over the same samples in the same order."""
    start = time.perf_counter()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model.train()
    for task in data.tasks:
        for epoch in range(task.first_epoch, task.last_epoch + 1):
            plan = TrainPlan(data.layout.train_index[task.index], data.batch_size, seed=data.seed)
            order = plan.order(epoch).tolist()
            samples = [(i, labels[i]) for i in order]
            loader = DataLoader(samples, data.batch_size, collate_fn=lambda items: items)
            for items in loader:
                x = torch.stack([to_float(images[i]) for i, _ in items])
                y = torch.stack([label for _, label in items])
                optimizer.zero_grad()
                F.cross_entropy(model.net(x), y).backward()
                optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images-per-class", type=int, default=32)
    parser.add_argument("--epochs-per-task", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    total = CLASSES * args.images_per_class
    images = torch.randint(0, 256, (total, 3, args.image_size, args.image_size), dtype=torch.uint8)
    labels = torch.arange(total) % CLASSES
    ratios, differences = [], []
    for round_ in range(args.rounds + 1):
        data = stream(images, labels, args.batch_size, args.epochs_per_task)
        data.setup()
        ours, theirs = Classifier(args.model, args.image_size), Classifier(args.model, args.image_size)
        if round_ % 2:  # take turns in who goes first
            hand = by_hand(data, theirs, images, labels)
            fit = through_the_stream(data, ours)
        else:
            fit = through_the_stream(data, ours)
            hand = by_hand(data, theirs, images, labels)
        difference = max(
            float((a - b).abs().max()) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
        )
        if round_:  # the first round warms up
            ratios.append(fit / hand)
            differences.append(difference)
        print(f"fit {fit:.2f} s, loop {hand:.2f} s, ratio {fit / hand:.3f}, largest weight difference {difference:.1e}")
    print(f"median ratio {median(ratios):.3f}")
    if args.out:
        settings = {k: str(v) for k, v in vars(args).items() if k != "out"}
        result = {
            "settings": settings,
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        args.out.write_text(json.dumps({**result, "ratios": ratios, "median": median(ratios)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
