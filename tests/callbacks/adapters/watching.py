"""What runs of methods with adapters are looked at with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks import ContinualCallback


class Watch(ContinualCallback):
    """All parameters and buffers at every task's start and end, and what the model answered there."""

    def __init__(self, images: Tensor | None = None) -> None:
        self.images = torch.rand(5, 1, 16, 16) if images is None else images
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []
        self.features: dict[str, list[Tensor]] = {"start": [], "end": []}

    def on_task_start(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self._look(pl_module, "start", self.starts)

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self._look(pl_module, "end", self.ends)

    def _look(self, module: Any, when: str, states: list[dict[str, Tensor]]) -> None:
        states.append({name: value.detach().clone() for name, value in module.state_dict().items()})
        mode = module.training
        with torch.no_grad():
            self.features[when].append(module.eval().head_input(self.images))
        module.train(mode)


def slots(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Stacked parameters of a method's banks."""
    return {name: value for name, value in state.items() if f"parts.{part}." in name and ".banks." in name}


def evaluated_twice(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of two evaluations, between which no tensor may change."""
    module.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        first, second = module(images).clone(), module(images)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    return first, second


def task_images(stream: Any, task: int) -> tuple[Tensor, Tensor]:
    """A task's training images on the evaluation transform, and their labels."""
    rows = list(stream.train_loader_for(task, "eval", 0))
    return torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows])
