"""What norms have of their own for each task is kept, found and put back."""

from __future__ import annotations

import torch
from torch import nn

from lightning_cl.nn import TaskRows
from lightning_cl.nn.substitution import all_norms


def made():
    return nn.ModuleDict({"batch": nn.BatchNorm1d(3), "layer": nn.LayerNorm(4), "plain": nn.LayerNorm(4, bias=False)})


def fill(net, value):
    with torch.no_grad():
        for tensor in (*net.parameters(), net["batch"].running_mean, net["batch"].running_var):
            tensor.fill_(value)


def test_rows_are_the_start_and_every_task():
    net = made()
    layers = all_norms(net)
    rows = TaskRows(layers, 2)
    assert list(layers) == ["batch", "layer", "plain"]
    for task, value in ((0, 5.0), (1, 7.0)):
        fill(net, value)
        rows.keep(layers, task)
    fill(net, 9.0)
    assert rows.of("batch", 0).keys() == {"running_mean", "running_var", "weight", "bias"}
    assert rows.of("plain", 1).keys() == {"weight"}
    for task, value in ((0, 5.0), (1, 7.0)):
        assert all(bool((kept == value).all()) for name in layers for kept in rows.of(name, task).values())
    rows.put_back(layers, 0)
    assert all(bool((p == 5).all()) for p in net.parameters())
    rows.put_back(layers)
    assert torch.equal(net["batch"].running_var, torch.ones(3))
    assert not bool(net["layer"].bias.any())


def test_without_weights_there_are_statistics_alone():
    rows = TaskRows(all_norms(made()), 2, affine=False)
    assert rows.of("batch", -1).keys() == {"running_mean", "running_var"}
    assert rows.of("layer", -1) == {}
    assert set(rows.growing) == {"batch/running_mean", "batch/running_var"}
