"""Few-shot sessions on what a frozen ViT-Tiny makes of CIFAR-100 images.

    python benchmarks/fscil_features.py --data cifar100_sub.npz --weights vit_tiny_patch16_224_fp16.safetensors
    python benchmarks/fscil_features.py --method teen

The first call passes images (112 pixels, no augmentation; 50 of each base class, 10 of each other, from which the 5 are
drawn, and all test images) through the network once and stores their class token and their patches, pooled to 4 x 4.
The second learns 60 base classes and 8 sessions of 5 classes with 5 samples each from
them: the backbone is frozen, so the numbers are those of a run on the images. Methods that learn in the base session
train a residual layer on the class token (`neck`), all with the same epochs and rate; nothing was tuned on the numbers
of the table beyond what the page says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from trainer import make_trainer, quiet

from lightning_cl.callbacks import (
    TEEN,
    ContinualEvaluation,
    MambaFSCIL,
    PreassignedPrototypes,
    PrototypeClassifier,
    SubnetTuning,
    SupervisedContrast,
)
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, FewShot
from lightning_cl.models.backbones import build_backbone

SIDE = 4
LEARNED: dict[str, Callable[[], list[Callback]]] = {  # in the base session, the neck or the projector
    "means_learned": lambda: [TEEN(alpha=0.0)],
    "teen_learned": lambda: [TEEN(alpha=0.1)],
    "contrast": lambda: [TEEN(alpha=0.0), SupervisedContrast()],
    "preassigned": lambda: [TEEN(alpha=0.0), PreassignedPrototypes()],
    "subnet": lambda: [TEEN(alpha=0.0), SubnetTuning(part="neck")],
    "tricks": lambda: [TEEN(alpha=0.0), SupervisedContrast(), PreassignedPrototypes(), SubnetTuning(part="neck")],
    "mamba_fscil": lambda: [MambaFSCIL(stage="maps", steps=60, batch_size=32)],
}
METHODS: dict[str, Callable[[], list[Callback]]] = {
    "prototypes": lambda: [PrototypeClassifier(distance="cosine", normalize=False)],
    "teen": lambda: [TEEN(alpha=0.1, train_base=False)],
    **LEARNED,
}


@torch.no_grad()
def extract(data: Path, weights: Path, base_images: int) -> dict[str, np.ndarray]:
    """``(N, 192, 17)`` pooled patches and the class token of every image that is kept, with labels."""
    net = build_backbone("vit_tiny_patch16_224", False, 100, str(weights), {"img_size": 112}).float().eval()
    known, arrays = np.load(data), {}
    for split in ("train", "test"):
        labels, rows = known[f"{split}_y"].astype(np.int64), []
        place = np.arange(len(labels)) - np.searchsorted(labels, labels)  # within the class; labels ascend
        kept = place < (np.where(labels < 60, base_images, 10) if split == "train" else len(labels))
        for part in torch.from_numpy(known[f"{split}_x"][kept]).split(64):
            images = F.interpolate(part.movedim(3, 1).float() / 127.5 - 1, size=112, mode="bilinear")
            tokens = net.forward_features(images).transpose(1, 2)  # (B, 192, 50), the class token first
            maps = F.adaptive_avg_pool2d(tokens[:, :, 1:].unflatten(2, (7, 7)), SIDE).flatten(2)
            rows.append(torch.cat([maps, tokens[:, :, :1]], dim=2))
        arrays[f"{split}_x"], arrays[f"{split}_y"] = torch.cat(rows).numpy(), labels[kept]
    return arrays


class Neck(LightningModule):
    """A residual layer on the class token, and a head."""

    def __init__(self, num_classes: int, learns: bool) -> None:
        super().__init__()
        self.maps, self.fc, self.learns = nn.Identity(), nn.Linear(192, num_classes), learns
        self.neck = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, 384), nn.GELU(), nn.Linear(384, 192))
        nn.init.zeros_(self.neck[3].weight)
        nn.init.zeros_(self.neck[3].bias)

    def forward(self, known: Tensor) -> Tensor:
        self.maps(known[:, :, :-1].unflatten(2, (SIDE, SIDE)))
        token = known[:, :, -1]
        return self.fc(token + self.neck(token) if self.learns else token)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01)


def run(args: argparse.Namespace) -> Path:
    seed_everything(args.seed, verbose=False)
    arrays = np.load(args.features)
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    source = DatasetSource(
        *(TensorDataset(tensors[f"{split}_x"], tensors[f"{split}_y"]) for split in ("train", "test")),
        train_targets=tensors["train_y"].tolist(),
        test_targets=tensors["test_y"].tolist(),
    )
    base = args.base_epochs if args.method in LEARNED else 1
    stream = ContinualDataModule(source, FewShot(60, 5, 5), 64, [base, *[1] * 8], eval_batch_size=500, seed=args.seed)
    stream.setup()
    folder = args.out / f"fscil_vit_tiny_{args.method}_seed{args.seed}"
    neck = Neck(100, args.method in LEARNED and args.method != "mamba_fscil")
    make_trainer([*METHODS[args.method](), ContinualEvaluation()], folder).fit(neck, datamodule=stream)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--features", type=Path, default=Path("features.npz"))
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--base-images", type=int, default=50)
    parser.add_argument("--base-epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet()
    start = time.process_time()
    if args.data is not None:
        np.savez(args.features, **extract(args.data, args.weights, args.base_images))
    if args.method is not None:
        folder = run(args)
        minutes = (time.process_time() - start) / 60
        (folder / "minutes.txt").write_text(f"{minutes:.2f} minutes of a processor, features stored before\n")
    print(f"{args.method or 'features'}: {(time.process_time() - start) / 60:.2f} minutes of a processor")
