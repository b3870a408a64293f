"""Methods side by side on real images with a real pre-trained ViT-Tiny: same stream, same budget, same evaluation.

    python benchmarks/real_images.py --data cifar100_sub.npz --weights vit_tiny_patch16_224_fp16.safetensors \
        --tasks 10 --method coda_prompt --out benchmarks/results

`--data` is an `.npz` with images and labels (see `lightning_cl.datamodules.ArraySource`), `--weights` a safetensors
file of timm's `vit_tiny_patch16_224`. Each run leaves its report, matrix and pictures in a folder of `--out`. Nothing
was tuned on the reported stream: prompts learn with Adam at 2e-3, the rate of a first trial; fine-tuning at 1e-4.
Heads in closed form (`prototypes`, `gacil`, `ranpac`, `slda`, `fecam`) make one pass over frozen features.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from lightning import Callback, seed_everything
from trainer import make_trainer, note_minutes, quiet

from lightning_cl.callbacks import (
    GACIL,
    L2P,
    CODAPrompt,
    ContinualEvaluation,
    DualPrompt,
    FeCAM,
    OnePrompt,
    PrototypeClassifier,
    RanPAC,
    StreamingLDA,
    VirtualOutlierRegularizer,
)
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.models import ImageClassifier

CLOSED_FORM: dict[str, Callable[[], list[Callback]]] = {
    "prototypes": lambda: [PrototypeClassifier()],
    "gacil": lambda: [GACIL(features=2000)],
    "ranpac": lambda: [RanPAC(features=2000)],
    "slda": lambda: [StreamingLDA()],
    "fecam": lambda: [FeCAM()],
}
METHODS: dict[str, Callable[[], list[Callback]]] = {
    **CLOSED_FORM,
    "finetune": lambda: [],
    "l2p": lambda: [L2P(pool_size=10, prompt_length=5, top_k=5)],
    "dualprompt": lambda: [DualPrompt()],
    "coda_prompt": lambda: [CODAPrompt()],
    "oneprompt": lambda: [OnePrompt()],
    "ovor": lambda: [OnePrompt(), VirtualOutlierRegularizer(outlier_epochs=1)],
}


def run(args: argparse.Namespace) -> Path:
    seed_everything(args.seed, verbose=False)
    half = (0.5, 0.5, 0.5)
    source = ArraySource(str(args.data), image_size=args.image_size, mean=half, std=half, augment="flip")
    epochs = 1 if args.method in CLOSED_FORM else args.epochs
    stream = ContinualDataModule(
        source, ClassIncremental(args.tasks, remainder="first"), args.batch_size, epochs, 128, seed=args.seed
    )
    stream.setup()
    model = ImageClassifier(
        "vit_tiny_patch16_224",
        pretrained=False,
        num_classes=stream.info.num_classes,
        optimizer="adam",
        lr=1e-4 if args.method == "finetune" else args.lr,
        lr_schedule="cosine",
        checkpoint_path=str(args.weights),
        backbone_kwargs={"img_size": args.image_size},
    )
    folder = args.out / f"{args.data.stem}_{args.method}_seed{args.seed}"
    callbacks = [*METHODS[args.method](), ContinualEvaluation()]
    make_trainer(callbacks, folder, check_val_every_n_epoch=epochs).fit(model, datamodule=stream)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet(args.threads)
    start = time.perf_counter()
    folder = run(args)
    minutes = note_minutes(folder, start, args.threads)
    print(minutes)


if __name__ == "__main__":
    main()
