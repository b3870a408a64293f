"""Gradients as one vector; the projections of A-GEM and GEM against worked numbers and a general solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn.gradients import (
    dual_of,
    flat,
    flat_or_zero,
    give_gradients,
    highest_cosine,
    last_layer_gradients,
    project_on_reference,
    project_on_references,
    write_flat,
)

G, R = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])


def test_the_worked_example_of_a_gem():
    found = project_on_reference(G, R)
    assert_close(found, torch.tensor([0.5, 0.5]))
    assert found @ R == 0


@pytest.mark.parametrize("reference", [torch.tensor([0.3, 0.7]), torch.tensor([0.0, 1.0]), torch.zeros(2)])
def test_nothing_is_done_without_a_conflict(reference):
    assert torch.equal(project_on_reference(G, reference), G)
    assert torch.equal(project_on_references(G, reference[None]), G)


@pytest.mark.parametrize(("margin", "v", "expected"), [(0.5, 0.5, [0.5, 0.5]), (0.0, 0.499750, [0.500250, 0.499750])])
def test_the_worked_example_of_gem(margin, v, expected):
    dual = dual_of((R @ R)[None, None].double(), (R @ G)[None].double(), margin, 1e-3)
    assert dual.item() == pytest.approx(v, abs=1e-6)
    assert_close(project_on_references(G, R[None], margin), torch.tensor(expected), rtol=0, atol=1e-6)


def test_one_task_without_margin_is_a_gem():
    torch.manual_seed(0)
    g, r = torch.randn(50), torch.randn(50)
    r = r if g @ r < 0 else -r
    assert_close(project_on_references(g, r[None], 0.0, 0.0), project_on_reference(g, r))


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("tasks", [2, 5, 19])
def test_the_quadratic_program_against_a_general_solver(tasks, margin):
    rng = np.random.default_rng(tasks)
    rows = torch.from_numpy(rng.normal(size=(tasks, 40)))
    g = torch.from_numpy(rng.normal(size=40)) - rows.mean(0)
    gram, dots = rows @ rows.T, rows @ g
    matrix, linear = gram.numpy() + 1e-3 * np.eye(tasks), dots.numpy()
    best = minimize(
        lambda v: v @ matrix @ v / 2 + linear @ v,
        np.full(tasks, margin),
        jac=lambda v: matrix @ v + linear,
        bounds=[(margin, None)] * tasks,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000},
    )
    np.testing.assert_allclose(dual_of(gram, dots, margin, 1e-3).numpy(), best.x, atol=1e-5)


def test_all_constraints_hold_afterwards():
    """Also for equal rows, whose matrix is singular."""
    torch.manual_seed(0)
    rows = torch.randn(6, 200)
    rows[5] = rows[0]
    g = -rows.mean(0) + 0.1 * torch.randn(200)
    assert (rows @ g).min() < -1
    assert (rows @ project_on_references(g, rows, 0.0, 0.0)).min() >= -1e-4
    exact = project_on_references(g.double(), rows.double(), 0.0, 0.0)
    assert (rows.double() @ exact).min() >= -1e-5


@pytest.mark.parametrize("against", [0.1, 3.0])
def test_the_margin_alone_is_the_answer_only_where_it_solves_the_program(against):
    torch.manual_seed(1)
    rows = torch.randn(5, 60, dtype=torch.float64)
    g = -against * rows[2]
    dual = dual_of(rows @ rows.T, rows @ g, 0.5, 1e-3)
    assert bool((dual == 0.5).all()) == (against == 0.1)
    assert_close(project_on_references(g, rows, 0.5, 1e-3), g + dual @ rows)


def test_a_vector_of_gradients_and_back():
    parts = [torch.randn(3, 2), torch.randn(()), torch.randn(2, 2, 2, 2).to(memory_format=torch.channels_last)]
    copies = [torch.zeros_like(part) for part in parts]
    write_flat(flat(parts), copies)
    assert all(torch.equal(a, b) for a, b in zip(parts, copies, strict=True))


def test_gradients_of_the_last_layer_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    head, features = nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    targets, allowed = torch.tensor([0, 2, 2, 0, 2]), torch.tensor([True, False, True])
    logits = head(features)
    found = last_layer_gradients(features, logits.detach(), targets, allowed).view(5, 3, 5)
    for row in range(5):
        loss = F.cross_entropy(logits.masked_fill(~allowed, -torch.inf)[row], targets[row])
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias], retain_graph=True)
        torch.testing.assert_close(found[row], torch.cat([weight, bias[:, None]], 1))


def test_the_cosine_of_the_specification() -> None:
    references = torch.tensor([[1.0, 1.0], [-1.0, 0.0]])
    assert float(highest_cosine(torch.tensor([[1.0, 0.0]]), references)) == pytest.approx(0.7071, abs=1e-4)
    assert float(highest_cosine(torch.zeros(1, 2), references)) == 0


def test_gradients_as_one_vector_and_back() -> None:
    weights = [torch.zeros(2, 3), torch.zeros(4)]
    vector = flat_or_zero([None, torch.arange(4.0)], weights)
    assert vector.tolist() == [0.0] * 6 + [0.0, 1.0, 2.0, 3.0]
    give_gradients(weights, vector + 1)
    assert torch.equal(flat(w.grad for w in weights), vector + 1)
    with pytest.raises(ValueError, match="shorter"):
        flat_or_zero([None], weights)
