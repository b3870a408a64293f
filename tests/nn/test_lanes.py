"""Lanes against their formulas, typed out with the weights of a timm ViT."""

from __future__ import annotations

import pytest
import torch
from tiny import images, tiny_vit
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from lightning_cl.nn.lanes import Lanes, install_lanes


def installed(tasks=3, selectors=4, prompts=2, blocks=3):
    vit = tiny_vit()
    torch.manual_seed(1)
    lanes = Lanes(tasks, 48, selectors, prompts, blocks).double().eval()
    with torch.no_grad():
        for parameter in lanes.parameters():
            parameter.normal_()
    return vit, lanes


def lane_by_hand(vit, lanes, task, x):
    """Class token of one task's lane, token by token and head by head."""
    image = vit._pos_embed(vit.patch_embed(x))
    cls = vit.cls_token.expand(len(x), -1, -1)
    selectors = lanes.selectors[task].expand(len(x), -1, -1)
    for index, block in enumerate(vit.blocks):
        read, own, mine = block.norm1(image), block.norm1(cls), block.norm1(selectors)
        weights = torch.einsum("bsd,bnd->bsn", mine, read).div(48**0.5).softmax(dim=2)
        tokens = torch.cat([own, torch.einsum("bsn,bnd->bsd", weights, read)], dim=1)
        query, key, value = block.attn.qkv(tokens).chunk(3, dim=2)
        if index < lanes.prompts.shape[1]:
            key, value = (
                torch.cat([lanes.prompts[task, index, part].expand(len(x), -1, -1), rows], dim=1)
                for part, rows in ((0, key), (1, value))
            )
        heads = []
        for head in range(4):
            part = slice(12 * head, 12 * (head + 1))
            share = (query[:, :1, part] @ key[..., part].mT / 12**0.5).softmax(dim=2)
            heads.append(share @ value[..., part])
        cls, selectors = cls + block.attn.proj(torch.cat(heads, dim=2)), selectors + mine
        cls, selectors = (rows + block.mlp(block.norm2(rows)) for rows in (cls, selectors))
        image = block(image)
    return functional.normalize(vit.norm(cls)[:, 0], dim=1)


@pytest.mark.parametrize("sizes", [{}, {"selectors": 0, "prompts": 0}], ids=["lanes", "the class token alone"])
def test_every_lane_is_that_of_the_formula(sizes):
    vit, lanes = installed(**sizes)
    x = images(3)
    expected = [lane_by_hand(vit, lanes, task, x) for task in range(2)]
    plain = vit.forward_features(x)
    install_lanes(vit, lanes)
    lanes.select(0, 2)
    found = vit.forward_head(vit.forward_features(x), pre_logits=True)
    assert_close(found, torch.cat(expected))
    lanes.select(0, 1)
    assert torch.equal(vit.forward_features(x)[:, 0], found[:3])  # another lane changes no bit
    assert not torch.equal(plain[:, 0], found[:3])


def test_only_the_lane_that_runs_gets_a_gradient():
    vit, lanes = installed()
    install_lanes(vit, lanes)
    lanes.train()
    lanes.select(1, 2)
    vit(images(3)).square().sum().backward()
    for parameter in lanes.parameters():
        assert [bool(part.any()) for part in parameter.grad] == [False, True, False]
    assert [name for name, p in vit.named_parameters() if p.grad is not None] == ["head.weight", "head.bias"]
    before = [p[1].clone() for p in lanes.parameters()]
    lanes.copy_task(1, 2)
    assert all(torch.equal(p[2], b) for p, b in zip(lanes.parameters(), before, strict=True))


def test_they_start_orthogonal_over_all_of_them():
    lanes = Lanes(3, 48, 4, 2, 5)
    selectors = lanes.selectors.detach().flatten(1)
    assert_close(selectors @ selectors.T, torch.eye(3))
    for block in range(5):
        rows = lanes.prompts.detach()[:, block].movedim(1, 0).flatten(1)  # keys and values of all tasks
        assert_close(rows @ rows.T, torch.eye(2))


def test_a_network_without_a_class_token_is_refused():
    vit = tiny_vit(class_token=False, global_pool="avg")
    with pytest.raises(ValueError, match="lanes end in the class token, but this ViT classifies 'avg'"):
        install_lanes(vit, Lanes(1, 48, 2, 2, 2))
    assert isinstance(vit.head, nn.Linear)
