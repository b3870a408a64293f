"""Methods side by side on a Si-Blurry stream of real images with a real pre-trained ViT-Tiny, measured at any time.

    python benchmarks/si_blurry.py run --data cifar100_sub.npz --weights vit_tiny_patch16_224_fp16.safetensors \
        --method mvp --seed 1 --out benchmarks/results
    python benchmarks/si_blurry.py table --data cifar100_sub.npz --out benchmarks/results --figure curves.png

`--data` is an `.npz` with images and labels (see `lightning_cl.datamodules.ArraySource`), `--weights` a safetensors
file of timm's `vit_tiny_patch16_224`. One ordered pass over 5 tasks, 50 % disjoint classes, 10 % blurry samples. The
stream, the batch and the number of updates are the same for all; nothing was tuned on it: everything learns with Adam,
prompts and heads at 5e-3 (MVP's published rate), all weights of fine-tuning and experience replay at 1e-4. `table`
prints mean and standard deviation over the seeds that were run, and draws the anytime curves of one of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

from lightning import Callback, seed_everything
from trainer import make_trainer, note_minutes, quiet

from lightning_cl.callbacks import (
    L2P,
    MVP,
    AnytimeEvaluation,
    ContinualEvaluation,
    DualPrompt,
    ExperienceReplay,
    FineTuning,
)
from lightning_cl.datamodules import ArraySource, ContinualDataModule, SiBlurry
from lightning_cl.metrics import ContinualReport, plot_anytime_comparison, read_report
from lightning_cl.models import ImageClassifier


def replay() -> ExperienceReplay:
    return ExperienceReplay(memory_size=500, batch_size=16)


METHODS: dict[str, Callable[[], list[Callback]]] = {
    "finetune": lambda: [FineTuning(train_mask="seen")],
    "er": lambda: [FineTuning(train_mask="seen"), replay()],
    "l2p": lambda: [L2P(pool_size=10, prompt_length=5, top_k=5)],
    "dualprompt": lambda: [DualPrompt(pool_size=10)],
    "mvp": lambda: [MVP()],
    "mvp_r": lambda: [MVP(), replay()],
}
ALL_WEIGHTS = ("finetune", "er")
NAMES = {
    "finetune": "fine-tuning",
    "er": "ER (500)",
    "l2p": "L2P",
    "dualprompt": "DualPrompt",
    "mvp": "MVP",
    "mvp_r": "MVP-R (500)",
}
SHOWN = {"a_auc": "A_AUC", "a_last": "A_Last", "f_last": "F_Last"}


def run(args: argparse.Namespace) -> None:
    quiet(args.threads)
    seed_everything(args.seed, verbose=False)
    half = (0.5, 0.5, 0.5)
    source = ArraySource(str(args.data), image_size=args.image_size, mean=half, std=half, augment="flip")
    stream = ContinualDataModule(
        source, SiBlurry(), args.batch_size, updates_per_batch=args.updates, eval_batch_size=128, seed=args.seed
    )
    stream.setup()
    model = ImageClassifier(
        "vit_tiny_patch16_224",
        pretrained=False,
        num_classes=stream.info.num_classes,
        optimizer="adam",
        lr=1e-4 if args.method in ALL_WEIGHTS else args.lr,
        checkpoint_path=str(args.weights),
        backbone_kwargs={"img_size": args.image_size},
    )
    folder = args.out / f"si_blurry_{args.data.stem}_{args.method}_seed{args.seed}"
    callbacks = [*METHODS[args.method](), AnytimeEvaluation(args.every, args.subset), ContinualEvaluation()]
    trainer = make_trainer(callbacks, folder)
    start = time.perf_counter()
    trainer.fit(model, datamodule=stream)
    minutes = note_minutes(folder, start, args.threads)
    print(f"{args.method} seed {args.seed}: {minutes}")


def reports(args: argparse.Namespace, method: str) -> dict[int, ContinualReport]:
    """Seed to what was measured."""
    name = f"si_blurry_{args.data.stem}_{method}_seed"
    folders = {path.name.removeprefix(name): path for path in args.out.glob(f"{name}*")}
    return {
        int(seed): read_report(folders[seed]) for seed in sorted(folders) if (folders[seed] / "minutes.txt").exists()
    }


def table(args: argparse.Namespace) -> None:
    found = {method: known for method in METHODS if (known := reports(args, method))}
    print(f"| | seeds | {' | '.join(SHOWN.values())} |\n| --- | --- | {' | '.join('---' for _ in SHOWN)} |")
    for method, known in found.items():
        values = [[100 * report.anytime["metrics"][name] for report in known.values()] for name in SHOWN]
        cells = [f"{fmean(v):.1f}" + (f" ± {stdev(v):.1f}" if len(v) > 1 else "") for v in values]
        print(f"| {NAMES[method]} | {', '.join(map(str, known))} | {' | '.join(cells)} |")
    if args.figure:
        curves = {NAMES[method]: known[args.seed] for method, known in found.items() if args.seed in known}
        figure, _ = plot_anytime_comparison(curves)
        figure.savefig(args.figure, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.set_defaults(command=run)
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--weights", type=Path, required=True)
    one.add_argument("--method", choices=METHODS, required=True)
    one.add_argument("--batch-size", type=int, default=16)
    one.add_argument("--updates", type=int, default=1)
    one.add_argument("--every", type=int, default=1000)
    one.add_argument("--subset", type=int, default=500)
    one.add_argument("--image-size", type=int, default=80)
    one.add_argument("--lr", type=float, default=5e-3)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    every = commands.add_parser("table")
    every.set_defaults(command=table)
    every.add_argument("--data", type=Path, required=True)
    every.add_argument("--seed", type=int, default=1, help="whose curves are drawn")
    every.add_argument("--figure", type=Path)
    every.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    args.command(args)
