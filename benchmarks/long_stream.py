"""Step time and memory at the end of a long stream against its start.

    python benchmarks/long_stream.py [--tasks 1000] [--each 100]
    python benchmarks/long_stream.py --rounds 0 --each 100 --output benchmarks/results/long_stream.json

Every task has the same number of samples, so a training step has the same work in the first and in the last task:
ideally the ratio is 1. Each round is a whole run; of a run, the median step of the tasks from 5 % to 15 % is held
against that of the last 10 %, from the end of one step to the end of the next. It is the processor time of one thread,
so that other work on the machine counts little. The model is so small that the stream machinery is most of a step: what
grows would show. A boundary lies between a task's last step and the next task's first. Validation passes over all tasks
seen, so that boundaries with it do grow; they are measured in a run of their own.

With ``--each`` every method that the package exports makes a run of its own, over as many tasks: on this model, or on
a small ViT if it needs one. What it answers instead of a run is in the result, too.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

import lightning_cl.callbacks
from lightning_cl.callbacks import ContinualCallback, ContinualEvaluation, ContinualMethod, FineTuning
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule

STEPS_PER_TASK, BATCH_SIZE, WIDTH = 8, 8, 64


class Small(LightningModule):
    """A classifier whose cost hardly depends on the number of classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


class SmallViT(Small):
    """For methods that need one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        shape = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 32, "depth": 3, "num_heads": 2}
        self.net = timm.models.VisionTransformer(num_classes=num_classes, **shape)


class Clock(ContinualCallback):
    """Seconds of each task's median step, and of each boundary: from a task's last step to the next task's first."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.boundaries: list[float] = []
        self.memory: list[int] = []
        self._times: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.process_time()
        if self._times and trainer.fit_loop.batch_idx == 0:
            self.boundaries.append(now - self._times[-1])
            self.steps.append(median(b - a for a, b in zip(self._times, self._times[1:], strict=False)))
            self.memory.append(resident_memory())
            self._times.clear()
        self._times.append(now)


def resident_memory() -> int:
    """Bytes of this process that are in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stream(tasks: int, identity: bool) -> ContinualDataModule:
    rng = np.random.default_rng(0)
    labels = [np.repeat(np.arange(tasks), count) for count in (STEPS_PER_TASK * BATCH_SIZE, 1)]
    splits = [(rng.integers(0, 256, (len(y), 8, 8), dtype=np.uint8), y) for y in labels]
    scenario = ClassIncremental(tasks, class_order="natural")
    options: dict[str, Any] = {"eval_batch_size": 1024, "pin_memory": False, "task_identity": identity}
    return ContinualDataModule(ArraySource(*splits), scenario, BATCH_SIZE, **options)


def run(tasks: int, evaluate: bool, method: Any = None, module: type[Small] = Small) -> Clock:
    method = method or FineTuning(reset_optimizer=True)
    clock = Clock()
    evaluation = [ContinualEvaluation(report=False, print_table=False)] if evaluate else []
    options: dict[str, Any] = {} if evaluate else {"limit_val_batches": 0}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=-1,
        callbacks=[method, *evaluation, clock],
        **options,
    )
    gc.collect()
    trainer.fit(module(tasks), datamodule=stream(tasks, method.needs_task_identity))
    return clock


def ends(values: list[Any]) -> tuple[float, float]:
    """Medians of the values from 5 % to 15 %, and of the last 10 %."""
    tenth = len(values) // 10
    return median(values[tenth // 2 : tenth // 2 + tenth]), median(values[-tenth:])


def summary(clocks: list[Clock]) -> dict[str, float]:
    steps, boundaries = ([ends(getattr(clock, name)) for clock in clocks] for name in ("steps", "boundaries"))
    return {
        "step_ratio_end_to_start": round(median(late / early for early, late in steps), 3),
        "step_ms_at_start": round(1e3 * median(early for early, _ in steps), 3),
        "boundary_ratio_end_to_start": round(median(late / early for early, late in boundaries), 3),
        "boundary_ms_at_start": round(1e3 * median(early for early, _ in boundaries), 3),
        "boundary_ms_at_end": round(1e3 * median(late for _, late in boundaries), 3),
        "memory_ratio_end_to_start": round(median(late / early for early, late in (ends(c.memory) for c in clocks)), 4),
        "peak_memory_mb": round(max(max(clock.memory) for clock in clocks) / 2**20, 1),
    }


def exported() -> dict[str, type[ContinualMethod]]:
    """Every method of the package by name: one joins by existing."""
    known = {name: getattr(lightning_cl.callbacks, name) for name in lightning_cl.callbacks.__all__}
    methods = {name: c for name, c in known.items() if isinstance(c, type) and issubclass(c, ContinualMethod)}
    return {name: c for name, c in methods.items() if isinstance(c.state_key, str)}  # a base class has none


def run_of(method: type[ContinualMethod], tasks: int) -> dict[str, float] | str:
    """A method's summary, or what it says of either network."""
    said = ""
    for module in (Small, SmallViT):
        try:
            return summary([run(tasks, False, method(**method.small), module)])
        except (ValueError, ImportError, RuntimeError) as error:
            said = str(error).split("\n")[0]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=0, help="tasks of a run of every exported method")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "tasks": args.tasks,
        "steps_per_task": STEPS_PER_TASK,
        "rounds": args.rounds,
        "training": summary([run(args.tasks, evaluate=False) for _ in range(args.rounds)]) if args.rounds else None,
        "with_evaluation_of_all_tasks_seen": summary([run(args.tasks, evaluate=True)]) if args.rounds else None,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    if args.each:
        result |= {"tasks_of_each": args.each, "each": {n: run_of(m, args.each) for n, m in exported().items()}}
    if not args.rounds and args.output is not None and args.output.exists():  # what was measured without methods stays
        known = json.loads(args.output.read_text())
        result = known | {name: result[name] for name in ("tasks_of_each", "each") if name in result}
    print(json.dumps(result, indent=2))
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
