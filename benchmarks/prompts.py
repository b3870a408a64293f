"""Cost of prompt methods, relative to one frozen forward pass of the same ViT.

    python benchmarks/prompts.py                      # ViT-Tiny, 224 px, batch 8, one thread
    python benchmarks/prompts.py --device cuda --model vit_base_patch16_224 --image-size 224 --batch-size 32

Every method takes one step in turn, over and over; the figures are medians of the ratios of a method's time to that of
the frozen forward pass in the same round, so a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
import torch.nn.functional as F
from lightning import LightningModule

from lightning_cl.callbacks import L2P, CODAPrompt, ContinualMethod, DualPrompt, OnePrompt
from lightning_cl.datamodules import StreamInfo, Task

CLASSES = 100
METHODS: dict[str, Callable[[], ContinualMethod]] = {
    "L2P": lambda: L2P(pool_size=10, prompt_length=5, top_k=5),
    "DualPrompt": lambda: DualPrompt(),
    "CODA-Prompt": lambda: CODAPrompt(),
    "OnePrompt": lambda: OnePrompt(),
}


class Classifier(LightningModule):
    """What a user would have."""

    def __init__(self, model: str, image_size: int) -> None:
        super().__init__()
        self.net = timm.create_model(model, num_classes=CLASSES, img_size=image_size)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])


def task(index: int, num_tasks: int) -> Task:
    per_task = CLASSES // num_tasks
    held = tuple(range(index * per_task, (index + 1) * per_task))
    return Task(index, held, held, tuple(range((index + 1) * per_task)), index, 1)


def prepare(make: Callable[[], ContinualMethod], args: argparse.Namespace, num_tasks: int, at: int) -> Classifier:
    """A module with the method attached, in task ``at`` of ``num_tasks``."""
    per_task = CLASSES // num_tasks
    classes = tuple(tuple(range(t * per_task, (t + 1) * per_task)) for t in range(num_tasks))
    info = StreamInfo(num_tasks, CLASSES, tuple(map(str, range(CLASSES))), classes, "benchmark")
    module = Classifier(args.model, args.image_size).to(args.device)
    make().attach_once(module, info)
    for index in range(at + 1):
        module.on_task_start(task(index, num_tasks))
    module.train()
    return module


def training_step(module: Classifier, batch: Any) -> Callable[[], None]:
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        output = Classifier.training_step(module, batch, 0)  # without the Trainer, which would log
        losses = module.prompts.pending_losses
        sum(losses, output).backward()
        losses.clear()
        optimizer.step()
        module.restore_protected()

    return step


def evaluation(module: Classifier, images: torch.Tensor, cached: bool) -> Callable[[], None]:
    _, cache = module.net.prompt_state()

    @torch.no_grad()
    def step() -> None:
        module.eval()
        if cached:
            cache.expect("test", torch.arange(len(images)), len(images))
        module.net(images)
        module.train()

    return step


def timed(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(steps: dict[str, Callable[[], None]], args: argparse.Namespace) -> dict[str, float]:
    """Median over the rounds of each step's time relative to that of ``forward`` in the same round."""
    for step in steps.values():
        step()
        step()
    rounds = [{name: timed(step, args.device) for name, step in steps.items()} for _ in range(args.rounds)]
    return {name: median(r[name] / r["forward"] for r in rounds) for name in steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--short", action="store_true", help="leave out the comparison of task 1 and task 100")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    images = torch.rand(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    batch = (images, torch.arange(args.batch_size, device=args.device) % 10)
    plain = timm.create_model(args.model, num_classes=CLASSES, img_size=args.image_size).eval().to(args.device)
    steps: dict[str, Callable[[], None]] = {"forward": torch.no_grad()(lambda: plain(images))}
    for name, make in METHODS.items():
        module = prepare(make, args, 10, 0)
        steps[f"{name}: training step"] = training_step(module, batch)
        steps[f"{name}: first evaluation"] = evaluation(module, images, cached=False)
        steps[f"{name}: later evaluation"] = evaluation(module, images, cached=True)
    for name, make in METHODS.items() if not args.short else ():
        last = (batch[0], batch[1] * 0 + 99)
        steps[f"{name}: step in task 1 of 100"] = training_step(prepare(make, args, 100, 0), (batch[0], batch[1] * 0))
        steps[f"{name}: step in task 100 of 100"] = training_step(prepare(make, args, 100, 99), last)
    ratios = measure(steps, args)
    for name, ratio in ratios.items():
        print(f"{name:40s} {ratio:6.2f} forward passes")
    if args.out:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        settings = {k: str(v) for k, v in vars(args).items() if k != "out"}
        args.out.write_text(json.dumps({"settings": settings, **about, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
