"""Oja's rule beside known directions: its step typed out, the subspace that it finds, and what merging keeps."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lightning_cl.nn.lateral_connections import HebbianSubspace, hebbian_step

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def projector(columns):
    basis = torch.linalg.qr(columns).Q
    return basis @ basis.T


def test_a_step_is_the_mean_over_the_inputs():
    inputs, rows, known = randn(7, 5), randn(2, 5), torch.linalg.qr(randn(5, 2)).Q
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for x in inputs:
        y = rows @ x
        expected += torch.outer(y, x - known @ (known.T @ x) - rows.T @ y) / len(inputs)
    assert_close(hebbian_step(rows, inputs.T @ inputs / len(inputs), known), expected)


def learned(memory, inputs, count, steps=400):
    memory.begin(count, torch.Generator().manual_seed(1))
    for _ in range(steps):
        memory.learn(inputs.T @ inputs, rate=0.5, inertia=0.9, iterations=5)
    return memory


def test_the_directions_are_those_of_a_principal_component_analysis():
    inputs = randn(50, 3) @ randn(3, 8) * 30  # of rank 3, and of any size
    memory = learned(HebbianSubspace(8).double(), inputs, 3)
    lateral = memory.lateral[:3]
    assert_close(lateral @ lateral.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-2)
    assert memory.merge() == 3
    assert_close(memory.basis @ memory.basis.T, projector(inputs.T[:, :3]), rtol=0, atol=1e-2)
    assert_close(memory.basis.T @ memory.basis, torch.eye(3, dtype=torch.float64))
    step = memory.project(randn(4, 8))
    assert float((step @ inputs.T).abs().max()) < 1e-2 * float((randn(4, 8) @ inputs.T).abs().max())


def test_a_later_task_learns_what_is_left():
    first, second = randn(40, 2) @ randn(2, 8), randn(40, 2) @ randn(2, 8)
    memory = learned(HebbianSubspace(8).double(), first, 2)
    memory.merge()
    kept = memory.basis.clone()
    learned(memory, torch.cat([first, second]), 2)
    memory.merge()
    assert memory.size == 4
    assert torch.equal(memory.basis[:, :2], kept)
    assert_close(memory.basis.T @ memory.basis, torch.eye(4, dtype=torch.float64))
    both = torch.cat([first, second])
    assert_close(both @ memory.basis @ memory.basis.T, both, rtol=0, atol=1e-2 * float(both.abs().max()))


def test_no_more_directions_than_there_are_and_zeros_teach_nothing():
    memory = HebbianSubspace(3)
    memory.begin(7, torch.Generator().manual_seed(0))
    before = memory.lateral.clone()
    memory.learn(torch.zeros(3, 3), 0.5, 0.9, 5)
    assert torch.equal(memory.lateral, before)
    assert memory.merge() == memory.size == 3
    memory.begin(7, torch.Generator().manual_seed(0))
    assert memory.merge() == 0


def test_a_copy_from_a_checkpoint_goes_on():
    inputs = randn(20, 6)
    memory = learned(HebbianSubspace(6).double(), inputs, 2, steps=3)
    twin = HebbianSubspace(6).double()
    twin.load_state_dict(memory.state_dict())
    for each in (memory, twin):
        each.learn(inputs.T @ inputs, 0.5, 0.9, 5)
        each.merge()
    assert torch.equal(twin.basis, memory.basis)
    assert twin.size == 2
