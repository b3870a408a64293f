"""Subspaces against numpy's SVD as GPM's steps use it, and layers whose outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import StepProjection, SubspaceMemory, layer_inputs

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def skewed(count, width):
    return rand(count, width) @ (rand(width, width) * torch.logspace(0, -2, width))


def steps_of_gpm(old, inputs, energy, crossing):
    """``(D, k)``: typed from the paper's algorithm, on columns of inputs."""
    r = inputs.double().numpy().T
    total = (r**2).sum()
    left = r - old @ (old.T @ r)
    u, s, _ = np.linalg.svd(left, full_matrices=False)
    share, count = (total - (left**2).sum()) / total, 0
    for value in s**2 / total:
        if share >= energy or (share + value >= energy and not crossing):
            break
        share, count = share + value, count + 1
    return np.concatenate([old, u[:, :count]], axis=1)


@pytest.mark.parametrize("crossing", [False, True])
def test_directions_of_three_tasks_against_numpy(crossing):
    memory, old = SubspaceMemory(8), np.zeros((8, 0))
    for energy in (0.9, 0.95, 0.99):
        inputs = skewed(30, 8)
        added = memory.extend(inputs, energy, crossing)
        new = steps_of_gpm(old, inputs, energy, crossing)
        assert added == new.shape[1] - old.shape[1]
        old = new
        assert memory.size == old.shape[1]
        ours = memory.basis.double().numpy()
        np.testing.assert_allclose(ours @ ours.T, old @ old.T, atol=1e-5)  # a basis is known up to turns
        np.testing.assert_allclose(ours.T @ ours, np.eye(memory.size), atol=1e-5)
    assert memory.size > 2


def test_the_share_that_reaches_the_energy():
    inputs = torch.diag(torch.tensor([0.9, 0.08, 0.02]).sqrt())
    memory = SubspaceMemory(3)
    assert memory.extend(inputs, 0.97) == 1  # the worked number
    memory = SubspaceMemory(3)
    assert memory.extend(inputs, 0.97, crossing=True) == 2
    assert memory.extend(inputs, 0.97, crossing=True) == 0
    assert memory.extend(inputs, 1.0, crossing=True) == 1
    assert memory.extend(inputs, 1.0, crossing=True) == 0  # nothing is left


def test_no_input_and_no_direction_of_rounding_errors():
    memory = SubspaceMemory(4)
    assert memory.extend(torch.zeros(3, 4), 0.9) == 0
    assert memory.extend(torch.ones(3, 4), 1.0, crossing=True) == 1


def test_sums_of_two_processes_are_the_whole():
    inputs = skewed(20, 6)
    whole, parts = SubspaceMemory(6), SubspaceMemory(6)
    whole.extend(inputs, 0.95)
    parts.extend_gram(sum(rows.double().T @ rows.double() for rows in inputs.split(13)), 0.95)
    assert_close(parts.basis @ parts.basis.T, whole.basis @ whole.basis.T)


LAYERS = {"linear": nn.Linear(6, 4), "conv": nn.Conv2d(2, 5, 3, stride=2, padding=1, dilation=2)}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_projected_steps_leave_outputs_on_old_inputs_as_they_are(name, kind):
    layer = LAYERS[name]
    shape = (3, 6) if isinstance(layer, nn.Linear) else (1, 2, 6, 6)
    old, new = rand(*shape), rand(*shape)
    rows = layer_inputs(layer, old)
    flat = rows @ layer.weight.flatten(1).T + layer.bias
    assert_close(flat, layer(old) if name == "linear" else layer(old).flatten(2).transpose(1, 2).flatten(0, 1))
    memory = SubspaceMemory(rows.shape[1])
    memory.extend(rows, 1.0, crossing=True)
    before, weight = layer(old).detach(), layer.weight.detach().clone()
    optimizer = kind([layer.weight], lr=0.1, weight_decay=0.1)
    StepProjection([layer.weight], [memory]).attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        layer(new).square().sum().backward()
        optimizer.step()
    assert not torch.allclose(layer.weight, weight)
    assert_close(layer(old), before, rtol=0, atol=1e-5)


def test_both_sides_of_a_gradient():
    memory, gradient = SubspaceMemory(5), rand(5, 5).double()
    assert memory.project(gradient) is gradient
    memory.extend(skewed(20, 5), 0.99, crossing=True)
    u = memory.basis.double()
    assert_close(memory.project(gradient, "in") @ u, torch.zeros(5, memory.size).double(), rtol=0, atol=1e-6)
    assert_close(u.T @ memory.project(gradient, "out"), torch.zeros(memory.size, 5).double(), rtol=0, atol=1e-6)
    once = memory.project(gradient, "out")
    assert_close(memory.project(once, "out"), once, rtol=0, atol=1e-6)


def test_a_memory_comes_back_whole():
    memory, fresh = SubspaceMemory(5), SubspaceMemory(5)
    memory.extend(skewed(20, 5), 0.99, crossing=True)
    fresh.load_state_dict(memory.state_dict())
    assert torch.equal(fresh.basis, memory.basis)
    assert 0 < fresh.size < 5


def test_layers_without_such_rows_are_refused():
    for layer in (nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 2, 3, padding="same"), nn.Conv1d(2, 2, 3)):
        with pytest.raises(ValueError, match=r"the inputs of a Conv.d with these options"):
            layer_inputs(layer, torch.ones(1, 2, 8, 8))
