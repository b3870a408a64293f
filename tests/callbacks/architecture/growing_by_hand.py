"""Training with a trunk for every task, typed out."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..by_hand import CLASSES, MOMENTUM, SIZE, ByHand


class GrownByHand(ByHand):
    """Old bodies, their columns, and the auxiliary head, which begins every task with the weights of the run."""

    def __init__(self, net: Any, strength: float = 1.0, align: bool = True) -> None:
        self.strength, self.aligns, self.begun = strength, align, 0
        self.bodies: list[Any] = []
        self.columns: list[Tensor] = []
        self.tasks, self.lr = net.tasks, net.lr
        super().__init__(net, seen=True)

    def random(self, generator: torch.Generator, width: int, *shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-(width**-0.5), width**-0.5, generator=generator)

    def earlier(self, body: Any, x: Tensor) -> Tensor:
        """Features of a body that is kept."""
        return body(x).detach()

    def begin(self) -> None:
        self.begun, generator = self.task, torch.Generator().manual_seed(self.task)
        self.bodies.append(copy.deepcopy(self.net.body))
        self.columns.append(self.net.fc.weight.detach().clone())
        self.net.fc.weight.data = self.random(generator, 9 * (self.task + 1), CLASSES, 9).double()
        self.auxiliary = [self.random(generator, 9, 1 + CLASSES, 9), self.random(generator, 9, 1 + CLASSES)]
        self.auxiliary = [p.double().requires_grad_() for p in self.auxiliary]
        for column in self.columns:
            column.requires_grad_()
        self.optimizer = torch.optim.SGD([*self.columns, *self.auxiliary], lr=self.lr, momentum=MOMENTUM)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.begun != self.task:
            self.begin()
        features = self.net.body(x)
        logits = self.net.fc(features)
        for body, column in zip(self.bodies, self.columns, strict=True):
            logits = logits + self.earlier(body, x) @ column.T
        loss = F.cross_entropy(logits[:, self.classes], y)
        if self.task:
            self.optimizer.zero_grad()
            new = [1 + self.task * SIZE + k for k in range(SIZE)]
            weight, bias = self.auxiliary
            own = features @ weight[[0, *new]].T + bias[[0, *new]]
            loss = loss + self.strength * F.cross_entropy(own, y - self.task * SIZE + 1)
        return loss

    def stepped(self, before: Any) -> None:
        if self.task:
            kept = [column.detach()[self.classes.stop :].clone() for column in self.columns]
            self.optimizer.step()
            for column, rest in zip(self.columns, kept, strict=True):
                column.data[self.classes.stop :] = rest

    def end(self, x: Tensor, y: Tensor) -> None:
        if self.task and self.aligns:
            parts = [p.data for p in (*self.columns, self.net.fc.weight)]
            new = slice(self.task * SIZE, self.classes.stop)
            lengths = torch.cat(parts, dim=1).norm(dim=1)
            for part in parts:
                part[new] *= lengths[self.old].mean() / lengths[new].mean()
