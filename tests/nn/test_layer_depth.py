"""Depths of weights: in a transformer, in a list of layers, and without a list."""

from __future__ import annotations

import pytest
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lightning_cl.nn.layer_depth import block_list, depths


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def test_twelve_blocks() -> None:
    """``alpha + beta (l - 1) / (L - 1)`` with 0.1 and 0.9, as the paper's code has it for 12 blocks."""
    net = nn.ModuleDict(
        {
            "net": VisionTransformer(
                img_size=16, patch_size=8, embed_dim=8, depth=12, num_heads=2, num_classes=0, mlp_ratio=1.0
            )
        }
    )
    assert block_list(net) == "net.blocks"
    found = depths(net, names(net), "net.blocks")
    first = [found[f"net.blocks.{i}.norm1.bias"] for i in range(12)]
    expected = [0.1, 0.1818, 0.2636, 0.3455, 0.4273, 0.5091, 0.5909, 0.6727, 0.7545, 0.8364, 0.9182, 1.0]
    assert [0.1 + 0.9 * depth for depth in first if depth is not None] == pytest.approx(expected, abs=5e-5)
    assert found["net.blocks.1.attn.qkv.weight"] == found["net.blocks.1.mlp.fc2.bias"] == first[1]
    assert {name for name, depth in found.items() if depth is None} == {
        "net.cls_token",
        "net.pos_embed",
        "net.patch_embed.proj.weight",
        "net.patch_embed.proj.bias",
        "net.norm.weight",
        "net.norm.bias",
    }


def test_layers_without_parameters_are_no_blocks() -> None:
    net = nn.Module()
    net.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4))
    net.fc = nn.Linear(4, 2)
    assert block_list(net) == "body"
    found = depths(net, names(net), "body")
    assert [found[f"body.{i}.weight"] for i in (1, 3, 4)] == [0.0, 0.5, 1.0]
    assert found["fc.weight"] is None


def test_without_a_list_every_layer_is_a_block() -> None:
    net = nn.Module()
    net.one, net.two, net.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    assert block_list(net) is None
    assert list(depths(net, names(net), None).values()) == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


def test_a_path_that_is_no_list() -> None:
    with pytest.raises(ValueError, match=r"`blocks='head\.0'` is no list of blocks in Linear"):
        depths(nn.Linear(2, 2), ["weight"], "head.0")
