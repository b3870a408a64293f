"""LightningModules on a network of each family of attention, for methods that put prompts into it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch.nn.functional as F
from attention_models import MODELS, head_of, reads_text, tower_of
from torch import Tensor

from lightning_cl.callbacks import L2P, ContinualMethod
from lightning_cl.callbacks.prompts.prompt_method import PromptMethod
from lightning_cl.nn.attention import family_of

from .methods import METHODS, make
from .modules import Case, _Own

PROMPT_METHODS = [method for method in METHODS if issubclass(method, PromptMethod)]
#: One of each family and of each way to read the image.
NETWORKS = [
    "vit-avg",
    "vit-map",
    "vit-distilled",
    "parallel",
    "eva",
    "beit",
    "swin",
    "hf-vit",
    "hf-dinov2",
    "hf-bert",
    "hf-llama",
    "hf-llama-probe",
    "torchvision",
    "open_clip",
]


class AttentionModule(_Own):
    """A user's module around a network that somebody built; texts are made of the images' brightness."""

    def __init__(self, name: str, optimizer: str = "adamw", dropout: float = 0.0) -> None:
        super().__init__(optimizer)
        self.net, self.reads_text = MODELS[name](), reads_text(name)

    def forward(self, images: Tensor) -> Tensor:
        if self.reads_text:
            words = F.avg_pool2d(images, 6).flatten(1).mul(4).round().long().clamp(-9, 9) + 10
            output: Any = self.net(input_ids=words)
        else:
            output = self.net(F.interpolate(images, size=32).expand(-1, 3, -1, -1))
        return output if isinstance(output, Tensor) else output.logits


def attention_case(name: str) -> Case:
    module = AttentionModule(name)
    names = {id(part): path for path, part in module.named_modules()}
    head, backbone = (names[id(find(module.net))] for find in (head_of, tower_of))
    return Case(name, partial(AttentionModule, name), head, backbone)


def small(method: type[ContinualMethod], name: str) -> ContinualMethod:
    """The method with prompts of a kind that the network takes."""
    prefixes = {"form": "prefix", "layers": (0, 2)} if method is L2P and not takes_tokens(name) else {}
    return make(method, **prefixes)


def takes_tokens(name: str) -> bool:
    network = tower_of(MODELS[name]())
    return family_of(network).joins(network)  # type: ignore[union-attr]


def on_networks(*names: str) -> pytest.MarkDecorator:
    """Every prompt method on every network: each network with one of them at once, and slowly with the others."""
    pairs = []
    for place, name in enumerate(names):
        for number, method in enumerate(PROMPT_METHODS):
            marks = () if number == place % len(PROMPT_METHODS) else pytest.mark.slow
            pairs.append(pytest.param(method, name, id=f"{name}-{method.__name__}", marks=marks))
    return pytest.mark.parametrize(("method", "name"), pairs)
