"""Prompts and adapters before heads that are no ``nn.Linear``, and what methods make of the head alone."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from tiny import TinyModule, stream_info, task_of
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.callbacks import APER, L2P, MVP, CODAPrompt, DualPrompt, OnePrompt
from lightning_cl.nn.head_layer import logits_from, pooled

from .heads import CLASSES, WIDTH, Arc, Cosine, Pixels


class Prompted(TinyModule):
    """A tiny ViT without a head, and another layer behind it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = timm.models.vision_transformer.VisionTransformer(
            img_size=8, patch_size=4, embed_dim=WIDTH, depth=3, num_heads=2, num_classes=0
        )
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))


@pytest.mark.parametrize("make", [Cosine, Pixels, Arc])
@pytest.mark.parametrize("method", [CODAPrompt, DualPrompt, L2P, OnePrompt, APER])
def test_prompts_and_adapters_learn_before_another_head(method: Any, make: Any) -> None:
    module, info = Prompted(make()), stream_info()
    method(**method.small, head="head" if make is Arc else None).attach_once(module, info)
    module.on_task_start(task_of(info, 0))
    logits = module.train()(torch.randn(4, 3, 8, 8))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
    learning = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert any(grad is not None and bool(grad.any()) for name, grad in learning.items() if "continual" in name)
    assert any(grad is not None and bool(grad.any()) for name, grad in learning.items() if name.startswith("head"))
    assert not [
        name for name in learning if name.startswith("net.") and "adapter" not in name and "continual" not in name
    ]


@pytest.mark.parametrize("make", [Cosine, Arc])
def test_scaling_by_the_rows_wants_a_linear_head(make: Any) -> None:
    with pytest.raises(ValueError, match=r"MVP scales .* but `head` is a .*; set `use_afs` and `use_gsf` to False"):
        MVP(**MVP.small, head="head").attach_once(Prompted(make()), stream_info())
    MVP(**MVP.small, head="head", use_afs=False, use_gsf=False).attach_once(Prompted(make()), stream_info())


def test_the_masks_of_a_prompt_pool_take_a_convolution() -> None:
    module, info = Prompted(Pixels()), stream_info()
    MVP(**MVP.small).attach_once(module, info)
    module.on_task_start(task_of(info, 0))
    assert module(torch.randn(4, 3, 8, 8)).shape == (4, CLASSES)


@pytest.mark.parametrize(
    "head",
    [
        nn.Linear(WIDTH, CLASSES),
        Cosine(),
        nn.Conv2d(WIDTH, CLASSES, 1),
        nn.Sequential(nn.Conv2d(WIDTH, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(WIDTH, CLASSES, 1)),
        Pixels(),
    ],
    ids=lambda head: type(head).__name__,
)
def test_a_head_alone_answers_from_features(head: nn.Module) -> None:
    features, like = torch.randn(4, WIDTH), torch.randn(4, WIDTH)[..., None, None].expand(-1, -1, 3, 3)
    found = logits_from(head, features)
    assert found.shape == (4, CLASSES)
    if isinstance(head, nn.Linear | Cosine | Pixels):
        assert torch.equal(found, head(features))
    else:  # a map of equal pixels
        assert_close(logits_from(head, like[..., 0, 0]), pooled(head, head(like)).flatten(1))
