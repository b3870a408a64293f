"""Cost of MVP's whole training step, relative to DualPrompt's: masked logits, scaled features, weights and both losses.

    python benchmarks/mvp.py                                    # ViT-Tiny, 224 px, batch 8, one thread
    python benchmarks/mvp.py --model vit_small_patch16_224
    python benchmarks/mvp.py --device cuda --model vit_base_patch16_224 --batch-size 64

Both with their default lengths: 5 general rows in two layers and 20 expert rows in three. DualPrompt's are prefixes, as
many keys as values, MVP's are tokens that are appended before a block. Every step is taken in turn, over and over; the
figures are medians of the ratios within a round, so a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from prompts import CLASSES, Classifier, prepare, timed

from lightning_cl.callbacks import MVP, ContinualMethod, DualPrompt

METHODS: dict[str, Callable[[], ContinualMethod]] = {
    "DualPrompt": lambda: DualPrompt(),
    "MVP": lambda: MVP(),
    "MVP as in the public code": lambda: MVP(variant="code"),
    "MVP without scaling and weights": lambda: MVP(use_afs=False, use_gsf=False),
    "MVP with prompts alone": lambda: MVP(use_mask=False, use_afs=False, use_gsf=False, cvpt_weight=0.0),
}


def training_step(module: Classifier, batch: Any) -> Callable[[], None]:
    """The step as the Trainer takes it, without its logging."""
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    optimizer = module.optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=5e-3)

    def step() -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
        module.restore_protected()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="compare DualPrompt and MVP alone")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    images = torch.rand(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    batch = (images, torch.arange(args.batch_size, device=args.device) % 10)
    plain = timm.create_model(args.model, num_classes=CLASSES, img_size=args.image_size).eval().to(args.device)
    steps: dict[str, Callable[[], None]] = {"forward": torch.no_grad()(lambda: plain(images))}
    names = ["DualPrompt", "MVP"] if args.short else list(METHODS)
    for name in names:
        steps[name] = training_step(prepare(METHODS[name], args, 10, 0), batch)
    for step in steps.values():
        step()
        step()
    rounds = [{name: timed(step, args.device) for name, step in steps.items()} for _ in range(args.rounds)]
    ratios, passes = (
        {name: median(r[name] / r[other] for r in rounds) for name in names} for other in ("DualPrompt", "forward")
    )
    for name in names:
        print(f"{name:34s} {ratios[name]:6.3f} of a DualPrompt step {passes[name]:8.2f} forward passes")
    if args.out:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        settings = {k: str(v) for k, v in vars(args).items() if k != "out"}
        figures = {"of_a_dualprompt_step": ratios, "forward_passes": passes}
        args.out.write_text(json.dumps({"settings": settings, **about, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
