from __future__ import annotations

import torch
from tiny import tiny_vit
from torch import nn

from lightning_cl.nn import freeze_backbone


def test_a_frozen_network_stays_in_evaluation_mode_but_for_its_head():
    vit = tiny_vit(drop_rate=0.5)
    names = list(vit.state_dict())
    freeze_backbone(vit)
    vit.train()
    assert vit.head.training
    assert vit.head_drop.training
    assert not any(m.training for name, child in vit.named_children() if "head" not in name for m in child.modules())
    assert {name for name, p in vit.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert list(vit.state_dict()) == names
    vit.eval()
    assert not vit.head.training


def test_any_network_and_other_parts():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    freeze_backbone(net, trained_parts=["2"])
    outer = nn.ModuleList([net]).train()
    before = net[1].running_mean.clone()
    outer[0](torch.randn(4, 2) + 3)
    assert torch.equal(net[1].running_mean, before)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["2.weight", "2.bias"]
    assert net[2].training
