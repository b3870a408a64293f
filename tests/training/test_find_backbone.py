"""The network that a method works on is found in a module, or said to be missing."""

from __future__ import annotations

import re

import pytest
from attention_models import MODELS
from torch import nn

from lightning_cl.training.find_backbone import find_attention, find_vit


def vit():
    return MODELS["vit-avg"]()


def parts(**children):
    return nn.ModuleDict(children)


def test_the_one_network_is_found_with_its_family():
    module = parts(inner=parts(net=vit()), fc=nn.Linear(2, 2))
    for path in (None, "inner.net", "inner"):  # the last holds just one
        name, network, family = find_attention(module, path)
        assert (name, network, family.name) == ("inner.net", module["inner"]["net"], "timm VisionTransformer")
    alone = vit()
    assert find_attention(alone)[:2] == ("", alone)


def test_a_tower_is_found_in_what_holds_it():
    probe = MODELS["open_clip"]()
    assert find_attention(parts(net=probe))[:2] == ("net.visual", probe.visual)


@pytest.mark.parametrize(
    ("module", "path", "words"),
    [
        (parts(a=vit(), b=vit()), None, 'several networks that take prompts: a, b; choose one with `backbone="..."`'),
        (parts(conv=nn.Conv2d(3, 3, 1)), None, "was found in the module. Its parts are: conv (Conv2d). Known are: "),
        (nn.Module(), None, "parts are: none"),
        (parts(conv=nn.Conv2d(3, 3, 1)), "conv", "was found at `backbone='conv'`, a Conv2d."),
        (parts(conv=nn.Conv2d(3, 3, 1)), None, "timm Eva"),
        (parts(conv=nn.Conv2d(3, 3, 1)), None, "in ten lines with `lightning_cl.nn.attention.register_attention`"),
        (parts(conv=nn.Conv2d(3, 3, 1)), None, "any network (replay, class means, regularisation, distillation)"),
        (parts(net=vit()), "nett", "`backbone='nett'` is not a part of the module; did you mean net"),
    ],
)
def test_none_or_several(module, path, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        find_attention(module, path)


def test_the_vit_is_found():
    module = parts(inner=parts(net=vit()), fc=nn.Linear(2, 2))
    assert find_vit(module) == find_vit(module, "inner.net") == ("inner.net", module["inner"]["net"])
    alone = vit()
    assert find_vit(alone) == ("", alone)


@pytest.mark.parametrize(
    ("module", "path", "words"),
    [
        (parts(a=vit(), b=vit()), None, 'several timm VisionTransformers: a, b; choose one with `backbone="..."`'),
        (parts(conv=nn.Conv2d(3, 3, 1)), None, "no timm `VisionTransformer` .* parts are: conv (Conv2d)"),
        (parts(fc=nn.Linear(1, 1), continual=nn.Identity()), None, "Its parts are: fc (Linear). Use a timm ViT"),
        (nn.Module(), None, "parts are: none"),
        (parts(conv=nn.Conv2d(3, 3, 1)), "conv", "`backbone='conv'` is a Conv2d"),
        (parts(net=vit()), "nett", "`backbone='nett'` is not a part of the module; did you mean net"),
    ],
)
def test_no_vit_or_several(module, path, words):
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words.split(" .* ")))):
        find_vit(module, path)
