"""A recurrent hypernetwork: its shapes, its recursion typed out, and that it changes nothing at first."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lightning_cl.nn.hypernetwork import RecurrentHypernetwork

SHAPES = {"a": torch.Size([3, 4]), "b": torch.Size([2, 1, 3, 3]), "c": torch.Size([5])}  # 12 + 18 + 5


def made(chunk=8, out=True):
    torch.manual_seed(0)
    net = RecurrentHypernetwork(SHAPES, 4, 3, 6, chunk, torch.zeros(1, dtype=torch.float64))
    if out:
        torch.nn.init.normal_(net.out.weight)
        torch.nn.init.normal_(net.out.bias)
    return net


def test_nothing_is_made_at_first():
    assert not bool(made(out=False)(torch.randn(2, 3, dtype=torch.float64)).any())


def test_weights_have_their_shapes_and_lie_end_to_end():
    net = made()
    assert len(net.chunks) == 5  # of 8, for 35 weights
    flat = net(net.tasks[1:2])[0]
    parts = net.split(flat)
    assert {name: part.shape for name, part in parts.items()} == SHAPES
    assert torch.equal(torch.cat([part.flatten() for part in parts.values()]), flat)


def test_the_recursion_typed_out():
    net, lstm = made(), made().lstm
    weight_in, weight_state, bias_in, bias_state = (p.detach() for p in lstm.parameters())
    for task in (0, 2):
        state, cell, chunks = torch.zeros(6).double(), torch.zeros(6).double(), []
        for chunk in net.chunks:
            inputs = torch.cat([net.tasks[task], chunk])
            i, f, g, o = (weight_in @ inputs + bias_in + weight_state @ state + bias_state).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            chunks.append(net.out.weight @ state + net.out.bias)
        assert_close(net(net.tasks[[2, task]])[1], torch.cat(chunks)[:35])


def test_every_parameter_has_a_gradient():
    net = made()
    net(net.tasks[1:2]).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in net.parameters())
    assert not bool(net.tasks.grad[[0, 2, 3]].any())
