"""Fine-tuning, replay and EWC beside Avalanche: seconds and peak memory at equal updates on the same digits.

    pip install avalanche-lib
    python benchmarks/avalanche_lib.py

Five tasks of two classes of scikit-learn's digits, the same network, batches and number of updates: a perceptron, whose
step takes a millisecond, or with `--network resnet20` a ResNet-20 on the digits as coloured images of 32 pixels. Both
train and neither evaluates; the libraries take turns, and a figure is the median over the rounds of Avalanche's seconds
over ours in the same round. Peak memory is what a run adds to the process, each in a process of its own. Without
`avalanche-lib` it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sklearn.datasets import load_digits
from step_cost import Classifier
from torch import Tensor, nn
from trainer import make_trainer, quiet

from lightning_cl.models import resnet20_cifar

TASKS, BATCH, MEMORY, EWC_STRENGTH = 5, 16, 100, 1.0
METHODS = ("fine-tuning", "replay", "EWC")


def images(name: str) -> tuple[Tensor, Tensor]:
    """Digits in the order of their classes, ``(N, 64)`` or ``(N, 3, 32, 32)`` in [0, 1], and labels."""
    data = load_digits()
    labels = torch.as_tensor(data.target, dtype=torch.int64)
    order = labels.argsort(stable=True)
    rows = torch.as_tensor(data.data, dtype=torch.float32)[order] / 16
    if name == "resnet20":
        rows = nn.functional.interpolate(rows.reshape(-1, 1, 8, 8), size=32).expand(-1, 3, -1, -1).contiguous()
    return rows, labels[order]


def network(name: str, width: int) -> nn.Module:
    """The same weights on both sides."""
    torch.manual_seed(0)
    if name == "resnet20":
        return resnet20_cifar(num_classes=10)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def ours(method: str, epochs: int, name: str, width: int) -> None:
    """A fit of the Trainer over the whole stream."""
    from lightning_cl.callbacks import EWC, ExperienceReplay
    from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule

    callbacks: dict[str, list[Any]] = {
        "fine-tuning": [],
        "replay": [ExperienceReplay(memory_size=MEMORY, batch_size=BATCH)],
        "EWC": [EWC(strength=EWC_STRENGTH, fisher="batch", train_mask="all")],
    }
    data = images(name)
    layout = {"layout": "ND"} if data[0].ndim == 2 else {"layout": "NCHW", "augment": "none"}
    source = ArraySource(data, data, **layout)
    stream = ContinualDataModule(source, ClassIncremental(TASKS, class_order="natural"), BATCH, epochs)
    make_trainer(callbacks[method], limit_val_batches=0).fit(Classifier(network(name, width)), datamodule=stream)


def theirs(method: str, epochs: int, name: str, width: int) -> None:
    """A training of Avalanche over the same tasks."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import EWC, Naive, Replay
    from torch.utils.data import TensorDataset

    inputs, labels = images(name)
    parts = [labels // 2 == task for task in range(TASKS)]
    sets = []
    for part in parts:
        dataset: Any = TensorDataset(inputs[part], labels[part])
        dataset.targets = labels[part].tolist()
        sets.append(as_classification_dataset(dataset))
    stream = benchmark_from_datasets(train=sets, test=sets).train_stream
    net = network(name, width)
    shared = {
        "model": net, "optimizer": torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": BATCH, "train_epochs": epochs, "evaluator": EvaluationPlugin(loggers=[]),
    }  # fmt: skip
    strategies: dict[str, Callable[[], Any]] = {
        "fine-tuning": lambda: Naive(**shared),
        "replay": lambda: Replay(mem_size=MEMORY, **shared),
        "EWC": lambda: EWC(ewc_lambda=EWC_STRENGTH, **shared),
    }
    strategy = strategies[method]()
    for experience in stream:
        strategy.train(experience)


def seconds_of(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _peak(run: Callable[[], None], answer: Any) -> None:
    quiet()
    before = _most_resident()
    run()
    answer.put(_most_resident() - before)


def _most_resident() -> float:
    """Megabytes that this process has held at most (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def peak_of(run: Callable[[], None]) -> float:
    """Megabytes that imports and a run add to a fresh process that has torch."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    child = context.Process(target=_peak, args=(run, answer))
    child.start()
    megabytes: float = answer.get(timeout=300)
    child.join()
    return megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--network", choices=("perceptron", "resnet20"), default="perceptron")
    parser.add_argument("--width", type=int, default=400, help="of both hidden layers of the perceptron")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    if find_spec("avalanche") is None:
        print("skipped: avalanche-lib is not installed (`pip install avalanche-lib`).")
        return
    quiet()
    table: dict[str, Any] = {}
    for method in METHODS:
        sides = {side.__name__: partial(side, method, args.epochs, args.network, args.width) for side in (ours, theirs)}
        rounds = [{name: seconds_of(run) for name, run in sides.items()} for _ in range(args.rounds + 1)][1:]
        ratios = [found["theirs"] / found["ours"] for found in rounds]
        peaks = {name: peak_of(run) for name, run in sides.items()}
        table[method] = {
            "seconds, theirs to ours": [round(f(ratios), 2) for f in (median, min, max)],
            "peak memory, theirs to ours": round(peaks["theirs"] / peaks["ours"], 2),
        }
        print(method, table[method], flush=True)
    if args.out:
        import avalanche

        about = {"machine": platform.machine(), "torch": torch.__version__, "avalanche": avalanche.__version__}
        settings = {"batch_size": BATCH, "memory": MEMORY}
        settings |= {"epochs": args.epochs, "rounds": args.rounds, "network": args.network, "width": args.width}
        args.out.write_text(json.dumps({"settings": settings, **about, "methods": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
