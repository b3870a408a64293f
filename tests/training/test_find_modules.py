from __future__ import annotations

import re
from itertools import pairwise

import pytest
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lightning_cl.training.find_modules import around, enclosing, find_head, find_stages


def vit(num_classes=10, **options):
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=num_classes, **options
    )


def parts(**modules):
    return nn.ModuleDict(modules)


def mlp(*sizes):
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


@pytest.mark.parametrize(
    ("module", "num_classes", "path"),
    [
        (nn.Linear(4, 10), 10, ""),
        (parts(body=mlp(4, 8), fc=nn.Linear(8, 10)), 10, "fc"),
        (parts(net=vit()), 10, "net.head"),
        (parts(net=vit(1000)), 10, "net.head"),  # more outputs than classes: the classifier of the one timm model
        (parts(net=vit(0), head=nn.Linear(12, 10)), 10, "head"),
        (parts(net=vit(12)), 12, "net.head"),  # layers in blocks have 12 outputs too
        (parts(layers=mlp(4, 8, 10)), 10, "layers.1"),  # a name that transformers use for their blocks
    ],
)
def test_the_head_is_found(module, num_classes, path):
    found, layer = find_head(module, num_classes)
    assert found == path
    assert layer is module.get_submodule(path)


def test_a_shared_head_is_one_head():
    head = nn.Linear(4, 10)
    assert find_head(parts(a=head, b=head), 10)[1] is head


@pytest.mark.parametrize(
    ("module", "path", "words"),
    [
        (
            parts(a=nn.Linear(4, 10), b=nn.Linear(5, 10)),
            None,
            'several .* a (4 -> 10), b (5 -> 10); choose one with `head="..."`',
        ),
        (parts(a=vit(1000), b=vit(1000)), None, "several .* a.head (12 -> 1000), b.head (12 -> 1000)"),
        (
            parts(a=mlp(4, 8, 7)),
            None,
            "no `torch.nn.Linear` with 10 outputs .* a.0 (4 -> 8), a.1 (8 -> 7). All are smaller",
        ),
        (parts(a=nn.Linear(4, 99)), None, "with 10 outputs .* a (4 -> 99). Give the model 10 outputs"),
        (parts(layers=mlp(4, 8)), None, "layers.0 (4 -> 8)"),
        (parts(a=nn.Conv2d(3, 3, 1)), None, "the linear layers are: none"),
        (
            parts(net=vit(7)),
            None,
            "the head `net.head` has 7 outputs but the stream has 10 classes; build the model with `num_classes=10`",
        ),
        (parts(fc=nn.Linear(4, 7)), "fc", "the head `fc` has 7 outputs"),
        (parts(fc=nn.Linear(4, 10)), "fx", "`head='fx'` is not a part of the module; did you mean fc"),
        (parts(fc=nn.Conv2d(3, 10, 3)), "fc", "`head='fc'` is a Conv2d"),
    ],
)
def test_no_head_or_several(module, path, words):
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words.split(" .* ")))):
        find_head(module, 10, path)


def test_a_named_head_wins():
    module = parts(a=nn.Linear(4, 10), b=nn.Linear(5, 12))
    assert find_head(module, 10, "b") == ("b", module["b"])


def test_what_holds_a_part_from_the_inside_out():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))), nn.Linear(2, 2))
    assert enclosing(net, "0.1.0") == [net[0][1], net[0], net]
    assert enclosing(net, "1") == [net]


def test_the_smallest_part_that_holds_several():
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))), nn.Linear(2, 2))
    assert around(net, [net[0][0], net[0][1][0]]) is net[0]
    assert around(net, [net[0][1][0]]) is net[0][1][0]
    assert around(net, [net[0][0], net[1]]) is net


def test_stages_by_their_names() -> None:
    resnet = nn.ModuleDict({f"layer{n}": nn.ModuleList([nn.Identity()]) for n in (1, 2, 3)})
    assert find_stages(nn.ModuleDict({"net": resnet})) == ("net.layer1", "net.layer2", "net.layer3")
    vit = nn.ModuleDict({"blocks": nn.Sequential(nn.ModuleDict({"mlp": nn.Identity()}), nn.Identity())})
    assert find_stages(vit) == ("blocks.0", "blocks.1")
    assert find_stages(vit, ["blocks"]) == ("blocks",)
    with pytest.raises(ValueError, match="no stages were found in this Linear"):
        find_stages(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="`stages='block'` is not a part of the module; did you mean blocks"):
        find_stages(vit, ["block"])


def block() -> nn.ModuleDict:
    return nn.ModuleDict({"mlp": nn.Identity()})


def test_blocks_of_hugging_face_are_stages() -> None:
    patches = nn.Conv2d(1, 2, 2)
    assert find_stages(parts(patches=patches, layers=nn.ModuleList([block(), block()]))) == ("layers.0", "layers.1")
    old = parts(embeddings=nn.Embedding(4, 2), patches=patches, encoder=parts(layer=nn.ModuleList([block()])))
    assert find_stages(old) == ("encoder.layer.0",)  # an embedding of places beside the patches


@pytest.mark.parametrize("layers", [[nn.Conv2d(1, 2, 2), nn.ReLU()], [nn.Linear(2, 2), nn.Linear(2, 2)]])
def test_layers_that_are_no_blocks_are_no_stages(layers) -> None:
    with pytest.raises(ValueError, match="no stages were found"):
        find_stages(parts(layers=nn.Sequential(*layers)))


@pytest.mark.parametrize("name", ["blocks", "layers"])
def test_words_have_no_maps(name) -> None:
    net = parts(words=nn.Embedding(4, 2), **{name: nn.ModuleList([block()])})
    with pytest.raises(ValueError, match=r"ModuleDict has an embedding .* reads words.*`stages=.*`spatial=0`"):
        find_stages(net)
    assert find_stages(net, [f"{name}.0"]) == (f"{name}.0",)
