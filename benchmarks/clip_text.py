"""Text side of a CPE-CLIP training step: a session of 5 classes after 100 seen ones, against the first 5 classes.

    python benchmarks/clip_text.py                        # text tower of ViT-B/16, one thread, random weights
    python benchmarks/clip_text.py --width 192 --layers 4 --rounds 50

A step reads the texts that compete, compares them with 4 image features, and goes back to the prompts. In the third row
the texts of all seen classes are read in every step, which is what the published code pays for the same gradient. Every
step is taken in turn, over and over; the figures are medians of the ratios within a round, so a machine that slows down
for a while slows all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_cl.callbacks import CPECLIP
from lightning_cl.datamodules.task import StreamInfo, Task

WAYS, CLASSES, BATCH = 5, 105, 4
#: Names are one of each.
WORDS = ("red", "small", "old", "tall", "wild", "grey", "blue", "soft", "round", "long")
THINGS = ("fish", "tree", "car", "house", "bird", "chair", "lamp", "road", "horse", "apple", "clock")


class FeaturesAlone(LightningModule):
    """Takes image features for images, so that the image tower costs nothing."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        tiny = {"image_size": 16, "patch_size": 16, "width": 64, "layers": layers, "head_width": 64}
        text = {"width": width, "heads": max(1, width // 64), "layers": layers}
        self.clip = open_clip.CLIP(embed_dim=512, vision_cfg=tiny, text_cfg=text)
        self.fc = nn.Linear(512, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])


def session(args: argparse.Namespace, index: int, mask: Any = "task") -> Callable[[], None]:
    """The step of session ``index`` as the Trainer takes it, without its logging."""
    torch.manual_seed(0)
    held = tuple(tuple(range(t * WAYS, (t + 1) * WAYS)) for t in range(CLASSES // WAYS))
    names = tuple(f"{word} {thing}" for thing in THINGS for word in WORDS)[:CLASSES]
    info = StreamInfo(len(held), CLASSES, names, held, "f" * 64)
    module = FeaturesAlone(args.width, args.layers)
    CPECLIP(vision_prompts=False, train_mask=mask).attach_once(module, info)
    module.to(args.device).train()
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    module.on_task_start(Task(index, held[index], held[index], info.seen_classes(index), index, 1))
    labels = torch.tensor(held[index][:BATCH], device=args.device)
    batch = (torch.randn(BATCH, 512, device=args.device), labels)
    optimizer = torch.optim.SGD(module.prompts.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], device: str) -> float:
    start = perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    last = CLASSES // WAYS - 1
    steps = {
        "first session, 5 seen classes": session(args, 0),
        "last session, 100 seen before": session(args, last),
        "last session, texts of all seen": session(args, last, "seen"),
    }
    for step in steps.values():
        step()
    rounds = [{name: timed(step, args.device) for name, step in steps.items()} for _ in range(args.rounds)]
    first = next(iter(steps))
    ratios = {name: median(r[name] / r[first] for r in rounds) for name in steps}
    for name, ratio in ratios.items():
        print(f"{name:34s} {ratio:7.3f} of the first session's step")
    if args.out:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        settings = {k: str(v) for k, v in vars(args).items() if k != "out"}
        args.out.write_text(
            json.dumps({"settings": settings, **about, "of_the_first_session": ratios}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
