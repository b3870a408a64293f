"""Online methods side by side on Si-Blurry and i-Blurry streams of real images, on features of a frozen ViT-Tiny.

    python benchmarks/online.py features --data cifar100_sub.npz --weights vit_tiny_patch16_224_fp16.safetensors
    python benchmarks/online.py run --method er --scenario si_blurry --seed 1  # all, if none is named
    python benchmarks/online.py table

`features` passes the first 50 training images and all test images of 60 classes once through the network at 112 pixels
and keeps its class token; `run` trains two layers on them in one ordered pass (5 tasks, half of the classes disjoint, a
tenth of the samples of the others dealt anew), the same for all methods; `table` prints mean and standard deviation
over the seeds that were run. Features are no images: a second view of a sample is its repetition, so contrastive
methods have no augmentation here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, seed_everything
from torch import Tensor, nn
from trainer import make_trainer, note_minutes, quiet

from lightning_cl.callbacks import (
    CLIB,
    ERACE,
    ERAML,
    MIR,
    SCR,
    AnytimeEvaluation,
    ContinualEvaluation,
    ExperienceReplay,
    FineTuning,
    OnPro,
)
from lightning_cl.datamodules import ArraySource, ContinualDataModule, IBlurry, SiBlurry
from lightning_cl.metrics import read_report
from lightning_cl.models.backbones import build_backbone

MEMORY: dict[str, Any] = {"memory_size": 500, "batch_size": 16}
METHODS: dict[str, Callable[[], list[Callback]]] = {
    "finetune": lambda: [FineTuning(train_mask="seen")],
    "er": lambda: [ExperienceReplay(**MEMORY)],
    "er_ace": lambda: [ERACE(**MEMORY)],
    "er_aml": lambda: [ERAML(**MEMORY)],
    "mir": lambda: [MIR(**MEMORY, candidates=50, lr=0.1)],
    "scr": lambda: [SCR(**MEMORY)],
    "clib": lambda: [CLIB(**MEMORY, period=10)],
    "onpro": lambda: [OnPro(**MEMORY)],
}
SCENARIOS = {"si_blurry": SiBlurry, "i_blurry": IBlurry}
SHOWN = {"a_auc": "A_AUC", "a_avg": "A_Avg", "a_last": "A_Last", "f_last": "F_Last"}


class TwoLayers(LightningModule):
    """A hidden layer of 256 units and a head, on vectors."""

    def __init__(self, width: int, num_classes: int, lr: float) -> None:
        super().__init__()
        self.net, self.lr = nn.Sequential(nn.Linear(width, 256), nn.ReLU()), lr
        self.fc = nn.Linear(256, num_classes)

    def forward(self, rows: Tensor) -> Tensor:
        return self.fc(self.net(rows))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


@torch.no_grad()
def features(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    net = build_backbone("vit_tiny_patch16_224", False, 100, str(args.weights), {"img_size": 112}).float().eval()
    known, found = np.load(args.data), {}
    for split in ("train", "test"):
        rows, labels = [], known[f"{split}_y"].astype(np.int64)
        place = np.array([np.sum(labels[:n] == label) for n, label in enumerate(labels)])  # within its class
        kept = (labels < args.classes) & ((place < args.each) | (split == "test"))
        for part in torch.from_numpy(known[f"{split}_x"][kept]).split(64):
            pixels = part.movedim(3, 1).float() / 127.5 - 1
            images = nn.functional.interpolate(pixels, size=112, mode="bilinear")
            rows.append(net.forward_features(images)[:, 0])  # the class token
        found |= {f"{split}_x": torch.cat(rows).numpy(), f"{split}_y": labels[kept]}
    np.savez(args.features, **found)


def run(args: argparse.Namespace) -> None:
    quiet(args.threads)
    for seed, scenario, method in product(args.seed, args.scenario, args.method):
        folder = args.out / f"online_{scenario}_{method}_seed{seed}"
        start = time.perf_counter()
        fit(args, seed, scenario, method, folder)
        minutes = note_minutes(folder, start, args.threads, digits=2)
        print(f"{scenario} {method} seed {seed}: {minutes}", flush=True)


def fit(args: argparse.Namespace, seed: int, scenario: str, method: str, folder: Path) -> None:
    seed_everything(seed, verbose=False)
    source = ArraySource(str(args.features), layout="ND")
    stream = ContinualDataModule(
        source,
        SCENARIOS[scenario](),
        args.batch_size,
        updates_per_batch=args.updates,
        eval_batch_size=500,
        seed=seed,
    )
    stream.setup()
    callbacks = [*METHODS[method](), AnytimeEvaluation(args.every), ContinualEvaluation()]
    make_trainer(callbacks, folder).fit(TwoLayers(192, stream.info.num_classes, args.lr), datamodule=stream)


def table(args: argparse.Namespace) -> None:
    print(f"| | {' | '.join(SHOWN.values())} |\n| --- | {' | '.join('---' for _ in SHOWN)} |")
    for scenario in SCENARIOS:
        for method in METHODS:
            folders = sorted(path.parent for path in args.out.glob(f"online_{scenario}_{method}_seed*/minutes.txt"))
            if not folders:
                continue
            known = [read_report(folder).anytime["metrics"] for folder in folders]
            values = [[100 * metrics[name] for metrics in known] for name in SHOWN]
            cells = [f"{fmean(v):.1f}" + (f" ± {stdev(v):.1f}" if len(v) > 1 else "") for v in values]
            print(f"| {scenario} {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--features", type=Path, default=Path("benchmarks/results/vit_tiny_features.npz"))
    commands = parser.add_subparsers(required=True)
    frozen = commands.add_parser("features")
    frozen.set_defaults(command=features)
    frozen.add_argument("--data", type=Path, required=True)
    frozen.add_argument("--weights", type=Path, required=True)
    frozen.add_argument("--classes", type=int, default=60, help="the first so many")
    frozen.add_argument("--each", type=int, default=50, help="training images of each class, the first so many")
    one = commands.add_parser("run")
    one.set_defaults(command=run)
    one.add_argument("--method", choices=METHODS, nargs="+", default=list(METHODS))
    one.add_argument("--scenario", choices=SCENARIOS, nargs="+", default=list(SCENARIOS))
    one.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    one.add_argument("--batch-size", type=int, default=16)
    one.add_argument("--updates", type=int, default=1)
    one.add_argument("--every", type=int, default=300)
    one.add_argument("--lr", type=float, default=1e-3)
    every = commands.add_parser("table")
    every.set_defaults(command=table)
    args = parser.parse_args()
    args.command(args)
