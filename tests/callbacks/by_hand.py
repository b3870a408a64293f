"""Runs of a method on a small stream in float64, and the same training typed out in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from lightning_cl.callbacks import FineTuning
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, SiBlurry

TASKS, SIZE, EACH = 3, 2, 10
CLASSES, LR, MOMENTUM = TASKS * SIZE, 0.3, 0.5


class Net(LightningModule):
    """A network of two layers that remembers the batches of every task."""

    def __init__(self, lr: float = LR) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.Tanh())
        self.fc = nn.Linear(9, CLASSES)
        self.lr, self.tasks = lr, []
        self.ends: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))

    def on_task_start(self, task: Any) -> None:
        self.tasks.append([])

    def on_task_end(self, task: Any) -> None:
        self.ends.append(weights(self))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.tasks[-1].append(tuple(tensor.clone() for tensor in batch))
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=MOMENTUM)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the user's own parameters."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if not name.startswith("continual")}


def make_stream(**options: Any) -> ContinualDataModule:
    """Three tasks of two classes, each class a random pattern with noise; batches of 8, 8 and 4."""
    rng, splits = np.random.default_rng(0), []
    patterns = rng.integers(0, 200, (CLASSES, 4, 4))
    for each in (EACH, 2):
        labels = np.repeat(np.arange(CLASSES), each)
        splits.append(((patterns[labels] + rng.integers(0, 55, (len(labels), 4, 4))).astype(np.uint8), labels))
    source = ArraySource(*splits, augment="none")
    scenario = options.pop("scenario", None) or ClassIncremental(num_tasks=TASKS, class_order=range(CLASSES))
    return ContinualDataModule(source, scenario, **{"batch_size": 8, "epochs_per_task": 2, **options})


def make_online() -> ContinualDataModule:
    """The same samples once, without boundaries: classes 1 and 2; 2 again, 3, 4 and 5; 1 again and 0."""
    return make_stream(epochs_per_task=1, scenario=SiBlurry(TASKS, blurry_sample_pct=40, seed=13))


@cache
def start() -> dict[str, Tensor]:
    """The weights with which every run begins."""
    torch.manual_seed(0)
    return weights(Net().double())


def run(
    method: Any, lr: float = LR, net: Any = None, callbacks: Sequence[Any] = (), stream: Any = None, **options: Any
) -> Any:
    """The module after one fit over the stream: a :class:`Net` unless another is given."""
    seed_everything(0, verbose=False)
    if net is None:
        net = Net(lr)
        net.load_state_dict(start())
    given = {"accelerator": "cpu", "precision": "64-true", "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": Path("unused")}
    Trainer(max_epochs=-1, callbacks=[method, *callbacks], num_sanity_val_steps=0, **{**given, **quiet, **options}).fit(
        net, datamodule=stream or make_stream()
    )
    return net


def assert_fine_tuning(method: Any) -> None:
    """The run ends in the bits of plain fine-tuning."""
    plain = run(FineTuning(train_mask=method.train_mask, reset_optimizer=method.reset_optimizer))
    found, expected = weights(run(method)), weights(plain)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


class ByHand:
    """Plain training on the batches of a run; subclasses type the method's formulas out.

    Args:
        net: A finished run.
        seen: Whether old classes compete in the loss; rows of the head whose classes do not are not trained.
        fresh: Whether every task has its own optimiser.
    """

    def __init__(self, net: Net, seen: bool = False, fresh: bool = True) -> None:
        self.net, self.seen, self.task = self.untrained(), seen, 0
        optimizer = torch.optim.SGD(self.net.parameters(), lr=net.lr, momentum=MOMENTUM)
        for self.task, batches in enumerate(net.tasks):
            if fresh:
                optimizer = torch.optim.SGD(self.net.parameters(), lr=net.lr, momentum=MOMENTUM)
            for x, y in batches:
                optimizer.zero_grad()
                self.loss(x, y).backward()
                self.edit(x, y)
                before = weights(self.net)
                optimizer.step()
                with torch.no_grad():
                    for name, p in self.net.fc.named_parameters():
                        kept = before[f"fc.{name}"].clone()
                        kept[self.classes] = p[self.classes]
                        p.copy_(kept)
                self.stepped(before)
            epoch = batches[: len(batches) // 2]
            self.end(torch.cat([x for x, _ in epoch]), torch.cat([y for _, y in epoch]))

    def untrained(self) -> Any:
        """The network with which the run began."""
        net = Net().double()
        net.load_state_dict(start())
        return net

    @property
    def classes(self) -> slice:
        """The classes that compete."""
        return slice(0 if self.seen else self.task * SIZE, (self.task + 1) * SIZE)

    @property
    def old(self) -> slice:
        """The classes of earlier tasks."""
        return slice(0, self.task * SIZE)

    def cross_entropy(self, x: Tensor, y: Tensor) -> Tensor:
        """Over the classes that compete."""
        return F.cross_entropy(self.net(x)[:, self.classes], y - self.classes.start)

    def gradients(self, value: Tensor) -> dict[str, Tensor]:
        """Of a scalar, by name."""
        names, parameters = zip(*self.net.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(value, parameters, allow_unused=True), strict=True))

    def copy(self) -> Net:
        """The network as it is."""
        return copy.deepcopy(self.net).eval()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Of a training step."""
        return self.cross_entropy(x, y)

    def edit(self, x: Tensor, y: Tensor) -> None:
        """Between backward pass and step."""

    def stepped(self, before: dict[str, Tensor]) -> None:
        """After a step."""

    def end(self, x: Tensor, y: Tensor) -> None:
        """At a task's end, with its samples."""


class TaughtByHand(ByHand):
    """Keeps the network of the task before, which adds a term."""

    teacher: Net | None = None

    def term(self, teacher: Net, x: Tensor) -> Tensor:
        raise NotImplementedError

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.cross_entropy(x, y)
        return loss if self.teacher is None else loss + self.term(self.teacher, x)

    def end(self, x: Tensor, y: Tensor) -> None:
        self.teacher = self.copy()


def quadratic(net: nn.Module, anchor: dict[str, Tensor], importance: dict[str, Tensor]) -> Tensor:
    """``sum F (w - a)^2``."""
    return sum((importance[n] * (p - anchor[n]) ** 2).sum() for n, p in net.named_parameters())  # type: ignore[return-value]


def assert_close(found: Net, hand: ByHand, bound: float = 1e-9) -> None:
    """The run ends where the training by hand ends."""
    expected = weights(hand.net)
    for name, value in weights(found).items():
        torch.testing.assert_close(value, expected[name], rtol=bound, atol=bound)


def assert_differs(found: Net, other: Net, at_least: float = 1e-4) -> None:
    """The two runs end in different weights."""
    gaps = [(a - b).abs().max() for a, b in zip(weights(found).values(), weights(other).values(), strict=True)]
    assert max(gaps) > at_least
