"""A user's own family in ten lines, and what is said where none is known."""

from __future__ import annotations

import pytest
import torch
from attention_models import MODELS, WIDTH
from fixed_prompts import Fixed
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn.attention import (
    AttentionFamily,
    attention_families,
    family_of,
    find_networks,
    put_in_prompts,
    register_attention,
    registry,
)


class Layer(nn.Module):
    """Somebody's block."""

    def __init__(self, fused=True):
        super().__init__()
        self.qkv, self.out, self.fused = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), fused

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class Network(nn.Module):
    """Somebody's network, which no library has."""

    def __init__(self, fused=True):
        super().__init__()
        self.layers, self.fc = nn.ModuleList([Layer(fused) for _ in range(2)]), nn.Linear(WIDTH, 10)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(dim=1))


@pytest.fixture
def own_family(monkeypatch):
    monkeypatch.setattr(registry, "_FAMILIES", list(registry._FAMILIES))

    @register_attention
    class Own(AttentionFamily):
        name = "somebody's network"
        networks = (Network,)

        def blocks(self, network):
            return network.layers

        def width(self, network):
            return WIDTH

    return Own


def tokens():
    return torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(1))


def test_a_family_of_ones_own_takes_prompts(own_family):
    torch.manual_seed(0)
    network, provider = Network(), Fixed(layers=(0,)).float()
    expected = [network.layers[1](network.layers[0](tokens())).mean(dim=1)]
    key, value = (rows.unflatten(2, (4, -1)).transpose(1, 2) for rows in provider.prefix)
    q, k, v = network.layers[0].qkv(tokens()).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    k, v = (torch.cat([p.expand(3, -1, -1, -1), own], dim=2) for p, own in ((key, k), (value, v)))
    mixed = ((q @ k.mT / 12**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    expected += [network.fc(network.layers[1](tokens() + network.layers[0].out(mixed)).mean(dim=1))]

    put_in_prompts(network, provider, family_of(network), network.fc)
    assert_close(network(tokens()), expected[1])
    assert_close(provider.queries[0], expected[0])
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}


def test_attention_without_torchs_softmax_is_refused_by_name(own_family):
    network = Network(fused=False)
    put_in_prompts(network, Fixed(layers=(1,)).float(), family_of(network), network.fc)
    with pytest.raises(ValueError, match="block 1, a Layer, computes its attention without torch's"):
        network(tokens())


def test_rows_that_do_not_fit_the_heads_are_refused(own_family):
    network, provider = Network(), Fixed(layers=(1,)).float()
    provider.prefix.data = provider.prefix.data[..., :-4]
    put_in_prompts(network, provider, family_of(network), network.fc)
    with pytest.raises(ValueError, match=r"the prefix has 1 x 44 channels, but the attention has .* 4 heads of 12"):
        network(tokens())


def test_the_family_that_was_added_last_is_asked_first(own_family):
    @register_attention
    class Later(own_family):
        name = "the same, told otherwise"

    assert type(family_of(Network())) is Later
    assert [f.name for f in attention_families()][:2] == [Later.name, own_family.name]


def test_a_family_without_networks_is_refused():
    with pytest.raises(ValueError, match="Nothing names no networks; set `networks`"):
        register_attention(type("Nothing", (AttentionFamily,), {"name": "nothing"}))


def test_networks_are_found_by_their_class_and_not_within_one_another():
    class Subclass(type(MODELS["hf-vit"]())):
        pass

    parts = nn.ModuleDict({"a": Subclass(MODELS["hf-vit"]().config), "b": MODELS["open_clip"](), "c": nn.Linear(1, 1)})
    found = {name: family.name for name, _, family in find_networks(parts)}
    assert found == {"a": "Hugging Face transformers", "b.visual": "open_clip VisionTransformer"}
    assert family_of(parts["c"]) is None


def test_several_stacks_of_layers_are_told_apart_by_the_user():
    transformers = pytest.importorskip("transformers", minversion="5")
    config = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    vision = {**config, "image_size": 16, "patch_size": 8}
    clip = transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=config))
    family = family_of(clip)
    with pytest.raises(ValueError, match=r"CLIPModel has 2 stacks of layers .*`backbone=\"net.vision_model\"`"):
        family.blocks(clip)
    assert len(family_of(clip.vision_model).blocks(clip.vision_model)) == 1


def test_stages_of_several_widths_are_refused_in_one_sentence():
    transformers = pytest.importorskip("transformers", minversion="5")
    config = transformers.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 1])
    swin = transformers.SwinForImageClassification(config)
    with pytest.raises(ValueError, match=r"layers of the SwinForImageClassification at .* have no place; use a method"):
        family_of(swin).blocks(swin)


def test_a_convolutional_network_of_hugging_face_is_refused_in_one_sentence():
    transformers = pytest.importorskip("transformers", minversion="5")
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
    network = transformers.ConvNextForImageClassification(config)
    with pytest.raises(ValueError, match=r"ConvNextForImageClassification has no `hidden_size` .*; use a method that"):
        family_of(network).width(network)
