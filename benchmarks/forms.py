"""A training step of a compiled module, and of one in channels-last order, relative to the same step of it as it is.

    python benchmarks/forms.py [--device cuda --batch-size 128]

Rounds, tasks and clock are those of `step_cost.py`; of a compiled module the steps in which it is compiled are not the
median ones, so what compiling itself takes is not in the figures.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from step_cost import NETWORKS, Classifier, median_step
from trainer import quiet

from lightning_cl.callbacks import CODAPrompt, ExperienceReplay, FineTuning, LoRA

FORMS: dict[str, Callable[[Classifier], Any]] = {
    "plain": lambda module: module,
    "channels_last": lambda module: module.to(memory_format=torch.channels_last),
    "compiled": torch.compile,
}
METHODS: dict[str, Callable[[], Any]] = {
    "FineTuning": FineTuning,
    "ExperienceReplay": lambda: ExperienceReplay(memory_size=32),
    "LoRA": LoRA,
    "CODAPrompt": CODAPrompt,
}
#: Methods that a network has no place for.
WITHOUT = {"ResNet-20, 32 px": ("LoRA", "CODAPrompt")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=7, help="of each of the two tasks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    quiet()
    ratios: dict[str, Any] = {}
    for name, (network, pixels) in NETWORKS.items():
        for method in (m for m in METHODS if m not in WITHOUT.get(name, ())):
            each = [
                {form: median_step(METHODS[method](), network, pixels, args, made) for form, made in FORMS.items()}
                for _ in range(args.rounds)
            ]
            found = {form: [r[form] / r["plain"] for r in each] for form in FORMS if form != "plain"}
            ratios[f"{name}: {method}"] = {k: [round(f(v), 2) for f in (median, min, max)] for k, v in found.items()}
            print(name, method, ratios[f"{name}: {method}"], flush=True)
    about = {"machine": platform.machine(), "torch": torch.__version__, "device": args.device}
    if args.output is not None:
        result = {"batch_size": args.batch_size, "rounds": args.rounds, **about, "ratios": ratios}
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
