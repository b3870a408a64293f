"""Half fine-tuning's choice: exact shares of every category, from the generator alone."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_cl.nn.half_masks import embedding_names, frozen_share

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


class Sentences(nn.Module):
    """Embeddings as Hugging Face names them, one of a name of its own, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        parts = {"word_embeddings": nn.Embedding(5, 2), "LayerNorm": nn.LayerNorm(2), "projection": nn.Conv2d(1, 2, 2)}
        self.embeddings = nn.ModuleDict(parts)
        self.embeddings.register_parameter("cls_token", nn.Parameter(torch.zeros(1, 1, 2)))
        self.tokens = nn.Embedding(5, 2)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 2))
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


def test_embeddings_are_always_trained() -> None:
    net = Sentences()
    found = embedding_names(net)
    names = {name for name, _ in net.named_parameters()}
    assert found == {name for name in names if not name.startswith("encoder.")}
    masks = frozen_share(dict(net.named_parameters()), 1.0, torch.Generator(), found)
    assert all(bool(mask.all()) == (name not in found) == bool(mask.any()) for name, mask in masks.items())


def test_a_network_that_makes_embeddings_is_none() -> None:
    net = nn.ModuleDict({"embedding": nn.Linear(2, 3), "embedder": nn.Conv2d(1, 2, 3)})
    assert not embedding_names(net)


@pytest.mark.parametrize(("share", "frozen"), [(0.0, False), (1.0, True)])
def test_nothing_or_all(weights: dict[str, Tensor], share: float, frozen: bool) -> None:
    masks = draw(weights, share)
    assert all(bool(mask.all()) == frozen for name, mask in masks.items() if name.startswith("blocks."))
