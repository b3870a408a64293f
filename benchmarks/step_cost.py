"""A training step with a regulariser or a teacher, relative to a plain step of the same network.

    python benchmarks/step_cost.py [--device cuda --batch-size 128]

In every round each method trains two tasks in turn; the figures are medians over the rounds of its median step in the
second task over that of plain training in the same round. On a CPU it is the processor time of one thread. Of GEM the
program for 19 earlier tasks is timed, and the products of gradients that it is made of; its pass over the memory costs
what the memory is large.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from lightning_cl.callbacks import EWC, L2SP, MAS, ContinualCallback, FineTuning, LwF, RWalk, SynapticIntelligence
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.models import resnet20_cifar
from lightning_cl.nn.gradients import dual_of, project_on_references

CLASSES, TASKS_OF_GEM = 10, 20
METHODS: dict[str, Callable[[], Any]] = {
    "plain": lambda: FineTuning(train_mask="task", reset_optimizer=True),
    "EWC": lambda: EWC(fisher="batch"),  # the pass at the task's end, the step is the same for all
    "SI": SynapticIntelligence,
    "MAS": MAS,
    "L2SP": L2SP,
    "RWalk": RWalk,
    "LwF": LwF,
}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-20, 32 px": (partial(resnet20_cifar, num_classes=CLASSES), 32),
    "ViT-Tiny, 112 px": (partial(timm.create_model, "vit_tiny_patch16_224", num_classes=CLASSES, img_size=112), 112),
}


class Classifier(LightningModule):
    """What a user would have."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.net = network

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9)


class Clock(ContinualCallback):
    """Seconds of every step of the second task."""

    def __init__(self, device: str) -> None:
        self.steps: list[float] = []
        self.device = device

    def now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._start = self.now()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.task.index:
            self.steps.append(self.now() - self._start)


def median_step(
    method: Any,
    network: Callable[[], nn.Module],
    pixels: int,
    args: argparse.Namespace,
    form: Callable[[Classifier], Any] = lambda module: module,
) -> float:
    """Seconds of the median step of the second task; ``form`` may compile the module, or change its layout."""
    labels = np.repeat(np.arange(CLASSES), -(-2 * args.steps * args.batch_size // CLASSES))
    rng, clock = np.random.default_rng(0), Clock(args.device)
    splits = [(rng.integers(0, 256, (len(y), pixels, pixels, 3), dtype=np.uint8), y) for y in (labels, np.arange(10))]
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    accelerator = "gpu" if args.device == "cuda" else "cpu"
    options |= {"enable_progress_bar": False, "limit_val_batches": 0, "max_epochs": -1, "accelerator": accelerator}
    stream = ContinualDataModule(ArraySource(*splits, augment="none"), ClassIncremental(2), args.batch_size)
    Trainer(devices=1, callbacks=[method, clock], **options).fit(form(Classifier(network())), datamodule=stream)
    return median(clock.steps)


def program(network: nn.Module, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds of GEM's program for 19 earlier tasks, and of the products around it."""
    size = sum(p.numel() for p in network.parameters())
    known, clock = torch.randn(TASKS_OF_GEM, size, device=args.device), Clock(args.device)
    gram, times = (known[:-1] @ known[:-1].T).double().cpu(), []
    for _ in range(10):
        start = clock.now()
        project_on_references(-known[0], known[:-1])
        middle = clock.now()
        dual_of(gram, -gram[0], margin=0.5, ridge=1e-3)
        times.append((clock.now() - middle, 2 * middle - start - clock.now()))
    return median(t for t, _ in times), median(t for _, t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="of each of the two tasks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ratios: dict[str, Any] = {}
    for name, (network, pixels) in NETWORKS.items():
        seconds = partial(median_step, network=network, pixels=pixels, args=args)
        each = [{m: seconds(make()) for m, make in METHODS.items()} for _ in range(args.rounds)]
        plain = median(r["plain"] for r in each)
        ratios[name] = {m: round(median(r[m] / r["plain"] for r in each), 3) for m in METHODS if m != "plain"}
        ratios[name] |= {"plain_ms": round(1e3 * plain, 1)}
        for part, seconds_of in zip(("GEM: program", "GEM: products"), program(network(), args), strict=True):
            ratios[name][part] = round(seconds_of / plain, 4)
    about = {"machine": platform.machine(), "torch": torch.__version__, "device": args.device}
    result = {"batch_size": args.batch_size, "rounds": args.rounds, **about, "ratios": ratios}
    print(json.dumps(result, indent=1))
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
