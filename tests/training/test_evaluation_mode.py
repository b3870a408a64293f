from __future__ import annotations

import copy

import pytest
import torch
from conformance.streams import make_stream
from torch import nn

from lightning_cl.training.batch import Inputs
from lightning_cl.training.evaluation_mode import in_default_precision, known_statistics


def test_a_pass_within_a_step_of_double_precision_draws_the_loaders_augmentation():
    stream = make_stream()
    stream.setup()
    expected = list(stream.train_loader_for(0, "train", 0))
    torch.set_default_dtype(torch.float64)
    try:
        found = list(in_default_precision(stream.train_loader_for(0, "train", 0)))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(found) == len(expected) > 0
    for (images, labels), (same, told) in zip(found, expected, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(labels, told)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("several", [False, True])
def test_one_sample_is_normalised_by_the_running_statistics(rows, several):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    net(torch.randn(8, 4))
    x, twin = torch.randn(rows, 4), copy.deepcopy(net)
    twin.train(rows > 1)
    with known_statistics(net, Inputs({"x": x, "other": x}) if several else x):
        found = net[:2](x)
    assert torch.equal(found, twin[:2](x))
    assert torch.equal(net[1].running_mean, twin[1].running_mean)  # of one sample, they stay
    assert all(part.training for part in net.modules())


def test_batch_norm_over_all_processes_waits_for_all_of_them():
    net = nn.Sequential(nn.SyncBatchNorm(5)).train()
    with known_statistics(net, torch.randn(1, 5)):
        assert net[0].training
