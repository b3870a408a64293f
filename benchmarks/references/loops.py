"""Replay, distillation and class means as hand-written loops, the straightforward way; plain PyTorch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Data = tuple[Tensor, Tensor]


class SampleBuffer:
    """Reservoir sampling of single images in Python lists."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.images: list[Tensor] = []
        self.labels: list[int] = []

    def add(self, images: Tensor, labels: Tensor) -> None:
        for image, label in zip(images, labels, strict=True):
            if len(self.images) < self.size:
                self.images.append(image.clone())
                self.labels.append(int(label))
            elif (place := random.randint(0, self.seen)) < self.size:
                self.images[place], self.labels[place] = image.clone(), int(label)
            self.seen += 1

    def draw(self, count: int) -> Data:
        chosen = random.sample(range(len(self.images)), min(count, len(self.images)))
        return torch.stack([self.images[i] for i in chosen]), torch.tensor([self.labels[i] for i in chosen])


def batches(data: Data, transform: Callable[[Tensor], Tensor], batch_size: int) -> Iterator[Data]:
    """Shuffled batches of samples that are transformed one by one."""
    for part in torch.randperm(len(data[1])).split(batch_size):
        yield torch.stack([transform(data[0][i]) for i in part.tolist()]), data[1][part]


def fine_tuning(
    net: nn.Module, tasks: Sequence[Data], epochs: int, batch_size: int, transform: Any, step: Any, end: Any = None
) -> None:
    """Train on one task after the other; ``step`` makes the loss of a batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    net.train()
    for index, data in enumerate(tasks):
        for _ in range(epochs):
            for images, labels in batches(data, transform, batch_size):
                optimizer.zero_grad()
                step(index, images, labels).backward()
                optimizer.step()
        if end is not None:
            end()


def replay(net: nn.Module, tasks: Sequence[Data], memory: int, drawn: int, **options: Any) -> None:
    """Experience replay: a draw from the memory beside every batch."""
    buffer = SampleBuffer(memory)

    def step(_: int, images: Tensor, labels: Tensor) -> Tensor:
        inputs, targets = images, labels
        if buffer.images:
            old = buffer.draw(drawn)
            inputs, targets = torch.cat([images, old[0]]), torch.cat([labels, old[1]])
        buffer.add(images, labels)
        return F.cross_entropy(net(inputs), targets)

    fine_tuning(net, tasks, step=step, **options)


def distillation(net: nn.Module, tasks: Sequence[Data], temperature: float = 2.0, **options: Any) -> None:
    """Learning without forgetting: a second full pass, through a copy of the network as the last task left it."""
    teachers: list[nn.Module] = []

    def step(_: int, images: Tensor, labels: Tensor) -> Tensor:
        logits = net(images)
        loss = F.cross_entropy(logits, labels)
        if teachers:
            with torch.no_grad():
                soft = F.softmax(teachers[-1](images) / temperature, dim=1)
            loss = loss - (soft * F.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean()
        return loss

    def end() -> None:
        teachers[:] = [copy.deepcopy(net).eval().requires_grad_(False)]

    fine_tuning(net, tasks, step=step, end=end, **options)


@torch.no_grad()
def class_means(
    net: Any, train: Sequence[Data], test: Sequence[Data], batch_size: int, transform: Any, again: bool = False
) -> list[float]:
    """Nearest class means of frozen features: after every task, means, then an evaluation of all tasks so far.

    Args:
        net: A timm network.
        train: Images and labels of each task.
        test: The same for the evaluation.
        batch_size: Of all passes.
        transform: Of an image.
        again: Compute the means of all classes so far anew after every task, not those of the new ones alone.
    """
    net.eval()
    means: dict[int, Tensor] = {}
    accuracies = []

    def features(data: Data) -> Tensor:
        parts = []
        for start in range(0, len(data[1]), batch_size):
            images = torch.stack([transform(image) for image in data[0][start : start + batch_size]])
            parts.append(F.normalize(net.forward_head(net.forward_features(images), pre_logits=True), dim=1))
        return torch.cat(parts)

    for index in range(len(train)):
        for data in train[: index + 1] if again else train[index : index + 1]:
            found = features(data)
            means |= {int(c): found[data[1] == c].mean(dim=0) for c in data[1].unique()}
        weight = F.normalize(torch.stack([means[c] for c in sorted(means)]), dim=1)
        right = [features(data) @ weight.T for data in test[: index + 1]]
        known = torch.tensor(sorted(means))
        hits = [(known[s.argmax(dim=1)] == d[1]).float() for s, d in zip(right, test, strict=False)]
        accuracies.append(float(torch.cat(hits).mean()))
    return accuracies
