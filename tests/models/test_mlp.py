"""The small perceptron: its shape, and the parts that other networks of timm have."""

from __future__ import annotations

import timm
import torch
from torch import nn

import lightning_cl.models  # noqa: F401


def test_its_parts_make_its_answers() -> None:
    net = timm.create_model("mlp_tiny", num_classes=7, img_size=8, width=5, depth=2)
    images = torch.randn(3, 1, 8, 8)
    hidden = images.flatten(1)
    for layer in (net.body[1], net.body[3]):
        hidden = (hidden @ layer.weight.T + layer.bias).relu()
    assert torch.allclose(net.forward_features(images), hidden, atol=1e-6)
    assert torch.equal(net(images), net.fc(net.forward_features(images)))
    assert sum(p.numel() for p in net.parameters()) == (64 + 1) * 5 + 6 * 5 + 6 * 7
    net.reset_classifier(0)
    assert isinstance(net.get_classifier(), nn.Identity)
