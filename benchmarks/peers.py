"""Training steps, evaluations and whole runs against the loops that were published, in one process on one core.

    python benchmarks/peers.py                     # all parts, ViT-Tiny at 112 px, batch 8
    python benchmarks/peers.py --parts prompts memory

The references are typed anew in `benchmarks/references/`. Both sides take turns, round by round; a figure is the median
over the rounds of the reference's processor time over ours in the same round, with the smallest and the largest beside
it, so a machine that slows down for a while slows both. More than 1: we are faster.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from prompts import CLASSES, prepare, training_step
from references import loops, two_pass
from step_cost import Classifier
from torch import Tensor
from trainer import make_trainer, quiet

from lightning_cl.callbacks import (
    L2P,
    CODAPrompt,
    ContinualEvaluation,
    ContinualMethod,
    DualPrompt,
    ExperienceReplay,
    LwF,
    OnePrompt,
    PrototypeClassifier,
)
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.models import resnet20_cifar

TASKS = 10
OURS: dict[str, Callable[[], ContinualMethod]] = {
    "CODA-Prompt": CODAPrompt,
    "DualPrompt": DualPrompt,
    "L2P": lambda: L2P(pool_size=10, prompt_length=5, top_k=5),
}
Ratios = dict[str, list[float]]


def references(vit: Any) -> dict[str, Callable[[], Any]]:
    """The published forms, and the same with a ViT that is frozen, as ours is and that of the ports of L2P."""
    coda, dual = partial(two_pass.CODA, vit.embed_dim, TASKS), partial(two_pass.Dual, vit.embed_dim, TASKS)
    return {
        "CODA-Prompt": lambda: two_pass.Prefixed(vit, coda()),
        "DualPrompt": lambda: two_pass.Prefixed(vit, dual()),
        "L2P": lambda: two_pass.L2PTokens(vit),
        "L2P, frozen": lambda: two_pass.L2PTokens(vit, frozen=True),
        "CODA-Prompt, frozen": lambda: two_pass.Prefixed(vit, coda(), frozen=True),
        "DualPrompt, frozen": lambda: two_pass.Prefixed(vit, dual(), frozen=True),
    }


def seconds_of(step: Callable[[], None]) -> float:
    """Processor time, which others on the machine change least."""
    start = time.process_time()
    step()
    return time.process_time() - start


def cached(module: Any, images: Tensor, step: Callable[[], None]) -> Callable[[], None]:
    """The step with the queries of its images known, as `cache_training_queries=True` makes it from the second on."""
    provider, evaluated = module.net.prompt_state()
    places = torch.arange(len(images))
    evaluated.expect("pass", places, len(images))
    with torch.no_grad():
        module.eval().net(images)
    queries, prints = evaluated.take("pass")
    module.train()
    provider.training_queries.expect("train", places, len(images))
    provider.training_queries.remember(queries, prints)

    def with_known_queries() -> None:
        provider.training_queries.expect("train", places, len(images))
        step()
        provider.training_queries.forget_expectation()

    return with_known_queries


def prompt_steps(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Steps of both sides by name, in the first of ten tasks."""
    images = torch.rand(args.batch_size, 3, args.image_size, args.image_size)
    batch = images, torch.arange(args.batch_size) % (CLASSES // TASKS)
    steps: dict[str, Callable[[], None]] = {}
    for name, make in OURS.items():
        module = prepare(make, args, TASKS, 0)
        steps[f"{name}: step"] = training_step(module, batch)
        module = prepare(make, args, TASKS, 0)
        steps[f"{name}: cached step"] = cached(module, images, training_step(module, batch))
        for kind in ("first", "later"):
            steps[f"{name}: {kind} evaluation"] = evaluation(prepare(make, args, TASKS, 0), images, kind == "later")
    create = partial(timm.create_model, args.model, num_classes=CLASSES, img_size=args.image_size)
    for name in references(create()):
        trained, evaluated = (references(create())[name]() for _ in range(2))
        steps[f"{name}: their step"] = two_pass.training_step(trained, batch, 0, CLASSES // TASKS)
        steps[f"{name}: their evaluation"] = two_pass.evaluation(evaluated, images, 0)
    return steps


def evaluation(module: Any, images: Tensor, known: bool) -> Callable[[], None]:
    """A pass over a batch of evaluation images, whose queries are known or not."""
    cache = module.eval().net.prompt_state()[1]

    @torch.no_grad()
    def step() -> None:
        if known:
            cache.expect("test", torch.arange(len(images)), len(images))
        module.net(images)

    return step


def prompts(args: argparse.Namespace) -> Ratios:
    """Steps, evaluations, and all evaluations of a run: the test images of task t are evaluated first after task t."""
    steps = prompt_steps(args)
    for step in (*steps.values(), *steps.values()):
        step()
    rounds = [{name: seconds_of(step) for name, step in steps.items()} for _ in range(args.rounds)]
    ratios: Ratios = {}
    for name in OURS:
        for kind in ("step", "cached step"):
            ratios[f"{name}: {kind}"] = [r[f"{name}: their step"] / r[f"{name}: {kind}"] for r in rounds]
            frozen = f"{name}, frozen: their step"
            ratios[f"{name}: {kind}, theirs frozen, too"] = [r[frozen] / r[f"{name}: {kind}"] for r in rounds]
        first, later, theirs = (f"{name}: {what} evaluation" for what in ("first", "later", "their"))
        all_of_a_run, again = TASKS * (TASKS + 1) // 2, TASKS * (TASKS - 1) // 2
        ratios[f"{name}: evaluations of a run"] = [
            all_of_a_run * r[theirs] / (TASKS * r[first] + again * r[later]) for r in rounds
        ]
    return ratios


def peak_of(step: Callable[[], None]) -> float:
    """Megabytes that a step takes beyond what there was before it (Linux)."""
    step()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, status = _resident("VmRSS"), _resident
    step()
    return status("VmHWM") - before


def _resident(what: str) -> float:
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def memory(args: argparse.Namespace) -> Ratios:
    """Peak memory of a step: of the reference over ours, and of ours over that of prompts without a query pass."""
    steps = {name: step for name, step in prompt_steps(args).items() if name.endswith(": step") or "their step" in name}
    images = torch.rand(args.batch_size, 3, args.image_size, args.image_size)
    one = prepare(OnePrompt, args, TASKS, 0)
    steps["OnePrompt: step"] = training_step(one, (images, torch.arange(args.batch_size) % (CLASSES // TASKS)))
    peaks = [{name: peak_of(step) for name, step in steps.items()} for _ in range(3)]
    found: Ratios = {}
    for name in OURS:
        found[f"{name}: memory of a step"] = [p[f"{name}: their step"] / p[f"{name}: step"] for p in peaks]
        found[f"{name}: memory over OnePrompt's"] = [p[f"{name}: step"] / p["OnePrompt: step"] for p in peaks]
    return found


def to_float(image: Tensor) -> Tensor:
    return image.float() / 255


def made(classes: int, per_class: int, pixels: int) -> list[tuple[Tensor, Tensor]]:
    """Training and test images, in the order of their classes."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(per_class)
    shape = (len(labels), 3, pixels, pixels)
    return [(torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw), labels) for _ in range(2)]


def tasks_of(data: tuple[Tensor, Tensor], tasks: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(data[0].chunk(tasks), data[1].chunk(tasks), strict=True))


class Evaluated(Classifier):
    """With a pass of the validation, which is all that an evaluation needs of a module."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


def fit(net: Any, callbacks: list[Any], data: Any, tasks: int, batch_size: int, epochs: int, evaluated: bool) -> None:
    """A whole run of the Trainer."""
    source = ArraySource(*data)
    stream = ContinualDataModule(
        source, ClassIncremental(tasks, class_order="natural"), batch_size, epochs,
        train_transform=to_float, eval_transform=to_float, eval_batch_size=batch_size, pin_memory=False,
    )  # fmt: skip
    make_trainer(callbacks, limit_val_batches=None if evaluated else 0).fit(Evaluated(net), datamodule=stream)


def in_turn(sides: dict[str, Callable[[], None]], rounds: int) -> list[dict[str, float]]:
    """Seconds of every side in every round; who goes first changes."""
    found = []
    for number in range(rounds):
        order = list(sides) if number % 2 else list(reversed(sides))
        found.append({name: seconds_of(sides[name]) for name in order})
    return found


def runs(args: argparse.Namespace) -> Ratios:
    """Replay and distillation, a ResNet-20 on two tasks of five classes, with all that a fit does around the steps."""
    data, options = made(10, 24, 32), {"epochs": 1, "batch_size": 16}
    theirs = {"tasks": tasks_of(data[0], 2), "transform": to_float, **options}
    network = partial(resnet20_cifar, num_classes=10)

    def ours(callback: Any) -> None:
        fit(network(), [callback], data, 2, 16, 1, evaluated=False)

    sides: dict[str, Callable[[], None]] = {
        "replay": lambda: ours(ExperienceReplay(memory_size=50, batch_size=16)),
        "replay, theirs": lambda: loops.replay(network(), memory=50, drawn=16, **theirs),
        "distillation": lambda: ours(LwF()),
        "distillation, theirs": lambda: loops.distillation(network(), **theirs),
    }
    found = in_turn(sides, args.rounds // 3 + 2)[1:]  # the first round warms up
    return {f"{name}: a run": [r[f"{name}, theirs"] / r[name] for r in found] for name in ("replay", "distillation")}


def means(args: argparse.Namespace) -> Ratios:
    """Class means of frozen features with an evaluation after each of ten tasks."""
    data, create = made(20, args.images_per_class, args.image_size), partial(timm.create_model, args.model)
    train, test = (tasks_of(part, TASKS) for part in data)
    network = create(num_classes=20, img_size=args.image_size)
    theirs = partial(loops.class_means, network, train, test, args.batch_size, to_float)

    def ours() -> None:
        method = PrototypeClassifier(distance="cosine")
        callbacks = [method, ContinualEvaluation(report=False, print_table=False)]
        fit(create(num_classes=20, img_size=args.image_size), callbacks, data, TASKS, args.batch_size, 1, True)

    sides = {"ours": ours, "new means": theirs, "all means": partial(theirs, again=True)}
    found = in_turn(sides, 3)
    return {
        "class means: a run, features computed for every evaluation": [r["new means"] / r["ours"] for r in found],
        "class means: a run, features computed for all means, too": [r["all means"] / r["ours"] for r in found],
    }


PARTS: dict[str, Callable[[argparse.Namespace], Ratios]] = {
    "prompts": prompts,
    "memory": memory,
    "runs": runs,
    "means": means,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images-per-class", type=int, default=4, help="of 20 classes, for class means")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    args.device = "cpu"
    quiet()
    torch.manual_seed(0)
    table: dict[str, list[float]] = {}
    for part in args.parts:
        for name, values in PARTS[part](args).items():
            middle, least, most = table[name] = [round(f(values), 2) for f in (median, min, max)]
            print(f"{name:60s} {middle:5.2f} ({least:.2f} to {most:.2f})", flush=True)
    if args.out:
        about = {"machine": platform.machine(), "torch": torch.__version__}
        settings = {key: value for key, value in vars(args).items() if key not in ("out", "device")}
        args.out.write_text(json.dumps({"settings": settings, **about, "ratios": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
