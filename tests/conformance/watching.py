"""A callback that looks over a method's shoulder."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_cl.callbacks import ContinualCallback
from lightning_cl.datamodules import Task

from .modules import Case

#: Parts of a timm ViT that are no backbone.
HEAD_PARTS = ("head", "head_drop", "fc_norm")


class Watcher(ContinualCallback):
    """Records what must not change and whether it did, and what must change and whether it did.

    Attributes:
        losses: Training loss of every step.
        frozen: Parameters without gradient as they were after attaching, by name.
        moved_rows: Parameters with rows that moved although their task was not the current one.
        protected: Names of parameters that had protected rows at any time.
        modes: Frozen modules of the backbone that were in training mode during a step.
        stuck: Parameters that were given a gradient outside of protected rows and did not move in that step.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.losses: list[float] = []
        self.frozen: dict[str, Tensor] = {}
        self.moved_rows: set[str] = set()
        self.protected: set[str] = set()
        self.modes: set[str] = set()
        self.stuck: set[str] = set()
        self._before: dict[str, tuple[nn.Parameter, Tensor]] = {}
        self._kept: list[tuple[str, nn.Parameter, Tensor, Tensor]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.frozen = {n: p.detach().clone() for n, p in pl_module.named_parameters() if not p.requires_grad}

    def on_task_start(self, trainer: Trainer, pl_module: Any, task: Task) -> None:
        names = {id(p): name for name, p in pl_module.named_parameters()}
        kept = [(names[id(p)], p, rows) for p, rows in pl_module.protected_rows()]
        if pl_module.continual.train_mask == "task":  # said here again, whatever the method protects
            head = pl_module.get_submodule(self.case.head)
            others = torch.tensor([c for c in range(head.out_features) if c not in task.classes], dtype=torch.long)
            kept += [(names[id(p)], p, others) for p in head.parameters()]
        self._kept = [(name, p, rows, p.detach()[rows].clone()) for name, p, rows in kept]
        self.protected.update(name for name, _, rows, _ in self._kept if rows.numel())

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.modes.update(frozen_modules_in_train_mode(pl_module.get_submodule(self.case.backbone)))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None and float(self._free_gradient(name, parameter.grad).abs().max()) > 1e-6:
                self._before[name] = parameter, parameter.detach().clone()

    def _free_gradient(self, name: str, gradient: Tensor) -> Tensor:
        gradient = gradient.detach().clone()
        for protected, _, rows, _ in self._kept:
            if protected == name:
                gradient[rows] = 0
        return gradient

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.moved_rows.update(name for name, p, rows, was in self._kept if not torch.equal(p.detach()[rows], was))
        self.stuck.update(name for name, (p, was) in self._before.items() if torch.equal(p.detach(), was))
        self._before.clear()


def frozen_modules_in_train_mode(backbone: nn.Module) -> list[str]:
    """Modules within wholly frozen parts of a backbone (dropout and normalisation too) that are in training mode."""
    found = []
    for name, part in backbone.named_children():
        parameters = list(part.parameters())
        if name not in HEAD_PARTS and parameters and not any(p.requires_grad for p in parameters):
            found += [f"{name}.{inner}".rstrip(".") for inner, module in part.named_modules() if module.training]
    return found
