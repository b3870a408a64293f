"""Layers that people use as heads: cosines, columns, proxies, convolutions, wrapped and small networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES, WIDTH = 10, 8


class Arc(nn.Module):
    """Cosines with the columns of a ``kernel``, as in ArcFace layers."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(WIDTH, classes))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x) @ nn.functional.normalize(self.kernel, dim=0)


class Proxies(nn.Module):
    """Distances to a row for each class, and a bias."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.proxies, self.bias = nn.Parameter(torch.randn(classes, WIDTH)), nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias - torch.cdist(x, self.proxies)


class Perceptron(nn.Module):
    """Its last layer makes the logits."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).relu())


class Cosine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


class Pixels(nn.Sequential):
    """A convolution of one pixel on vectors."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__(nn.Unflatten(1, (WIDTH, 1, 1)), nn.Conv2d(WIDTH, classes, 1), nn.Flatten())


class Wrapped(nn.Module):
    """As PEFT does it."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer, self.lora = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora(x)
