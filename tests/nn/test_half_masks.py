"""Half fine-tuning's choice: exact shares of every category, from the generator alone."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_cl.nn.half_masks import frozen_share

BLOCKS = 4


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    net = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=12, depth=BLOCKS, num_heads=2, num_classes=0, mlp_ratio=2.0
    )
    return dict(net.named_parameters())


def draw(weights: dict[str, Tensor], share: float = 0.5, seed: int = 0) -> dict[str, Tensor]:
    return frozen_share(weights, share, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shares_of_a_transformer(weights: dict[str, Tensor], seed: int) -> None:
    """2 of 4 attention matrices a block; fc1 in half of the blocks, fc2 in the others; one of two norms a block."""
    masks = draw(weights, seed=seed)
    assert {name: mask.shape for name, mask in masks.items()} == {name: w.shape for name, w in weights.items()}
    pairs: dict[str, list[bool]] = {"mlp.fc1": [], "mlp.fc2": [], "norm1": [], "norm2": []}
    for block in (f"blocks.{i}." for i in range(BLOCKS)):
        for kind in ("weight", "bias"):
            thirds = masks[f"{block}attn.qkv.{kind}"].chunk(3)
            units = [*thirds, masks[f"{block}attn.proj.{kind}"]]
            assert all(bool(unit.all()) or not bool(unit.any()) for unit in units)
            assert sum(bool(unit.all()) for unit in units) == 2
        assert torch.equal(masks[f"{block}attn.qkv.weight"][:, 0], masks[f"{block}attn.qkv.bias"])
        for layer, found in pairs.items():
            found.append(bool(masks[f"{block}{layer}.weight"].all()))
            assert bool(masks[f"{block}{layer}.bias"].all()) == found[-1] == bool(masks[f"{block}{layer}.bias"].any())
    for first, second in (("mlp.fc1", "mlp.fc2"), ("norm1", "norm2")):
        assert sum(pairs[first]) == BLOCKS // 2
        assert pairs[second] == [not frozen for frozen in pairs[first]]
    others = [name for name in masks if not name.startswith("blocks.")]
    assert others
    assert not any(bool(masks[name].any()) for name in others)


def test_draws_are_the_generators(weights: dict[str, Tensor]) -> None:
    one, same, other = draw(weights, seed=5), draw(weights, seed=5), draw(weights, seed=6)
    assert all(torch.equal(one[name], same[name]) for name in weights)
    assert any(not torch.equal(one[name], other[name]) for name in weights)


def test_other_networks_by_layers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 4), nn.Linear(4, 5, bias=False))
    masks = draw(dict(net.named_parameters()))
    layers = {str(i): {bool(m.all()) for n, m in masks.items() if n.startswith(f"{i}.")} for i in range(4)}
    assert all(len(found) == 1 for found in layers.values())
    assert sum(found == {True} for found in layers.values()) == 2


@pytest.mark.parametrize(("share", "frozen"), [(0.0, False), (1.0, True)])
def test_nothing_or_all(weights: dict[str, Tensor], share: float, frozen: bool) -> None:
    masks = draw(weights, share)
    assert all(bool(mask.all()) == frozen for name, mask in masks.items() if name.startswith("blocks."))
