"""Forgetting on purpose on real images: a ResNet-20 learns ten classes of CIFAR-10 and is asked to forget two of them.

    python benchmarks/forget.py --data cifar10_sub.npz --method never_saw
    python benchmarks/forget.py --data cifar10_sub.npz --method npo

`--data` is an `.npz` with images and labels (see `lightning_cl.datamodules.ArraySource`). `never_saw` learns the other
eight classes alone, for as many epochs: what an unlearned model would ideally be, and the retain accuracy that the
others of its seed are compared with, so it runs first. A request reads all images of the two classes and a quarter of
those that are retained. Learning rate, epochs and the objectives' numbers were not tuned. Percentages are left in
`percent.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from lightning import Callback, seed_everything
from trainer import make_trainer, note_minutes, quiet

from lightning_cl.callbacks import ContinualEvaluation, Unlearning, UnlearningEvaluation
from lightning_cl.datamodules import ArraySource, ClassSubset, ContinualDataModule, Forget, Joint
from lightning_cl.models import ImageClassifier

OBJECTIVES = ("npo", "ascent", "random_labels", "refusal")
FORGOTTEN = (0, 1)  # airplane, automobile
REFERENCE = "never_saw"


def folder_of(args: argparse.Namespace, method: str) -> Path:
    return args.out / f"cifar10_forget_{method}_seed{args.seed}"


def stream_of(args: argparse.Namespace) -> ContinualDataModule:
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    source: Any = ArraySource(str(args.data), image_size=32, augment="flip", **imagenet)
    if args.method == REFERENCE:
        kept = [label for label in range(10) if label not in FORGOTTEN]
        return ContinualDataModule(ClassSubset(source, classes=kept), Joint(), 32, args.epochs, 100, seed=args.seed)
    epochs = [args.epochs, args.request_epochs]
    return ContinualDataModule(source, Forget([FORGOTTEN], retained=0.25), 32, epochs, 100, seed=args.seed)


def fitted(args: argparse.Namespace, callbacks: list[Callback], folder: Path) -> None:
    stream = stream_of(args)
    stream.setup()
    model = ImageClassifier(
        "resnet20_cifar",
        pretrained=False,
        num_classes=stream.info.num_classes,
        optimizer="adam",
        lr=0.001,
        lr_schedule="cosine",
    )
    make_trainer(callbacks, folder, check_val_every_n_epoch=args.request_epochs).fit(model, datamodule=stream)


def run(args: argparse.Namespace) -> Path:
    """One method, one seed."""
    seed_everything(args.seed, verbose=False)
    folder, evaluation = folder_of(args, args.method), ContinualEvaluation(report=False, print_table=False)
    if args.method == REFERENCE:
        fitted(args, [evaluation], folder)
        percent = {"retain accuracy": 100 * float(evaluation.matrix()[0, 0])}
    else:
        meter = UnlearningEvaluation()
        fitted(args, [Unlearning(args.method), meter, evaluation], folder)
        percent = percentages(meter.requests[1], reference(args))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "percent.json").write_text(json.dumps(percent, indent=1) + "\n")
    return folder


def reference(args: argparse.Namespace) -> float:
    """Retain accuracy, in percent, of the model of this seed that never saw what is to be forgotten."""
    return float(json.loads((folder_of(args, REFERENCE) / "percent.json").read_text())["retain accuracy"])


def percentages(request: dict[str, dict[str, float]], never_saw: float) -> dict[str, float]:
    """What a request left, on test images where nothing else is said; the gap is positive where it lost accuracy."""
    before, after = ({name: 100 * value for name, value in request[when].items()} for when in ("before", "after"))
    return {
        "retain accuracy before": before["retain_accuracy"],
        "forget accuracy before": before["held_out_accuracy"],
        "retain accuracy": after["retain_accuracy"],
        "forget accuracy": after["held_out_accuracy"],
        "forget accuracy on training images": after["forget_accuracy"],
        "gap to a model that never saw them": never_saw - after["retain_accuracy"],
        "membership gap": after["membership_gap"],
        "probe accuracy": after["probe_accuracy"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", choices=(REFERENCE, *OBJECTIVES), required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--request-epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    quiet()
    if args.method != REFERENCE and not (folder_of(args, REFERENCE) / "percent.json").exists():
        parser.error(f"there is nothing to compare with in {args.out}; run `--method {REFERENCE}` of this seed first")
    start = time.perf_counter()
    folder = run(args)
    minutes = note_minutes(folder, start)
    print(f"{args.method}, seed {args.seed}: {minutes}", (folder / "percent.json").read_text())


if __name__ == "__main__":
    main()
