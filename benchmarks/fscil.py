"""Few-shot sessions on real images with a small CLIP that was pre-trained on other classes.

    python pretraining/pretrain_small_clip.py ...        # writes the model, see there
    python benchmarks/fscil.py --data cifar100_sub.npz --clip clip/ --method teen
    python benchmarks/fscil.py --data cifar100_sub.npz --clip clip/ --method cpe_clip --base-epochs 5 --epochs 5

The base session has 60 classes, then come 8 sessions of 5 classes with 5 samples each (the usual protocol, on a
sub-sampled data set). `--clip` is a folder with `open_clip_config.json` and `open_clip_model.safetensors`. The frozen
model's zero-shot answers, its class means, fine-tuning and TEEN start from CPE-CLIP's image tower. Nothing was tuned:
CPE-CLIP has its published optimiser, rates and decay, and with 5 epochs its published epochs; fine-tuning learns with
AdamW at 1e-4 (all weights of the image tower).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from trainer import make_trainer, note_minutes, quiet

from lightning_cl.callbacks import CPECLIP, TEEN, ContinualEvaluation, FineTuning, PrototypeClassifier
from lightning_cl.datamodules import ArraySource, ContinualDataModule, FewShot
from lightning_cl.models import CLIPClassifier

METHODS: dict[str, Callable[[], list[Callback]]] = {
    "zero_shot": lambda: [],
    "cpe_clip": lambda: [CPECLIP()],
    "prototypes": lambda: [PrototypeClassifier(distance="cosine", normalize=False)],
    "teen": lambda: [TEEN(alpha=0.1, train_base=False)],
    "finetune": lambda: [FineTuning(train_mask="seen")],
}


class ImageTower(LightningModule):
    """The image tower of a CLIP with a plain classifier, trained as a whole."""

    def __init__(self, clip: CLIPClassifier, num_classes: int) -> None:
        super().__init__()
        self.clip = clip
        self.clip.requires_grad_(False)
        self.clip.net.visual.requires_grad_(True)
        self.clip.head = nn.Identity()  # its texts are not asked
        self.fc = nn.Linear(clip.net.visual.output_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.normalize(self.clip.net.visual(self.clip._prepared(images)), dim=-1) * 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-4)


def run(args: argparse.Namespace) -> Path:
    seed_everything(args.seed, verbose=False)
    source = ArraySource(str(args.data), image_size=args.image_size, augment="none")
    base, later = (1, 1) if args.method in ("zero_shot", "prototypes", "teen") else (args.base_epochs, args.epochs)
    batch: Any = [32, *[4] * 8] if args.method == "cpe_clip" else 32
    schedule = [base, *[later] * 8]
    stream = ContinualDataModule(source, FewShot(60, 5, 5), batch, schedule, eval_batch_size=128, seed=args.seed)
    stream.setup()
    clip = CLIPClassifier(
        str(args.clip / "open_clip_config.json"),
        pretrained=str(args.clip / "open_clip_model.safetensors"),
        num_classes=stream.info.num_classes,
        class_names=stream.info.class_names,
        lr=0.001,
        weight_decay=1e-5,
        lr_schedule="cpe_clip" if args.method == "cpe_clip" else "constant",
    )
    model = clip if args.method in ("zero_shot", "cpe_clip") else ImageTower(clip, stream.info.num_classes)
    folder = args.out / f"fscil_{args.data.stem}_{args.method}_seed{args.seed}"
    callbacks = [*METHODS[args.method](), ContinualEvaluation()]
    make_trainer(callbacks, folder, check_val_every_n_epoch=math.gcd(base, later)).fit(model, datamodule=stream)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--base-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet(args.threads)
    start = time.perf_counter()
    folder = run(args)
    minutes = note_minutes(folder, start, args.threads)
    print(f"{args.method}: {minutes}")
