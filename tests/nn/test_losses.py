"""Losses against loops typed from the papers' formulas, and worked numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn import cosine_distance, distillation, divergence, pooled_distance, supervised_contrastive

GENERATOR = torch.Generator().manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def test_distillation_against_a_loop_and_the_worked_number():
    student, teacher, temperature = rand(3, 4), rand(3, 4), 2.5
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(v / temperature) / sum(math.exp(w / temperature) for w in t) for v in t]
        q = [math.exp(v / temperature) / sum(math.exp(w / temperature) for w in s) for v in s]
        total += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert distillation(student, teacher, temperature).item() == pytest.approx(total / 3)
    worked = distillation(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 2.0)
    assert worked.item() == pytest.approx(0.1212, abs=1e-4)


def test_distillation_of_itself_is_zero_and_the_teacher_gets_no_gradient():
    student, teacher = rand(3, 4).requires_grad_(), rand(3, 4).requires_grad_()
    assert distillation(student, student, 2.0).item() == pytest.approx(0, abs=1e-12)
    distillation(student, teacher, 2.0).backward()
    assert teacher.grad is None
    p, q = (student / 2).softmax(1).detach(), (teacher / 2).softmax(1).detach()
    assert_close(student.grad, 2 * (p - q) / 3)  # T^2 / T, mean over three samples


@pytest.mark.parametrize("reverse", [False, True])
def test_divergence_of_tokens_against_a_loop(reverse):
    student, teacher = rand(2, 3, 4), rand(2, 3, 4)
    found = divergence(student, teacher, 1.5, reverse)
    assert found.shape == (2, 3)
    for at in [(0, 0), (1, 2)]:
        p, q = ([math.exp(v / 1.5) for v in logits[at].tolist()] for logits in (teacher, student))
        p, q = ([v / sum(values) for v in values] for values in (p, q))
        of, to = (q, p) if reverse else (p, q)
        assert found[at].item() == pytest.approx(sum(a * math.log(a / b) for a, b in zip(of, to, strict=True)))


def test_divergence_forward_is_distillation_and_reverse_trains_the_student_alone():
    student, teacher = rand(3, 4).requires_grad_(), rand(3, 4).requires_grad_()
    assert_close(4 * divergence(student, teacher, 2.0).mean(), distillation(student, teacher, 2.0))
    divergence(student, teacher, reverse=True).sum().backward()
    assert teacher.grad is None
    q, gap = student.softmax(1), student.log_softmax(1) - teacher.log_softmax(1)
    assert_close(student.grad, (q * (gap - (q * gap).sum(1, keepdim=True))).detach())
    assert not divergence(student, student, reverse=True).any()


def test_cosine_distance_sees_directions_only():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[5.0, 0.0], [0.0, -1.0]])
    assert cosine_distance(a, b).item() == pytest.approx(1.0)  # 0 and 2
    teacher = rand(2, 2).requires_grad_()
    cosine_distance(rand(2, 2).requires_grad_(), teacher).backward()
    assert teacher.grad is None


def test_pooled_distance_against_the_worked_number_and_a_loop():
    a, b = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 2], [3, 5]])
    assert pooled_distance(a[None, None], b[None, None]).item() == pytest.approx(0.095650, abs=1e-6)
    student, teacher = rand(2, 3, 4, 5), rand(2, 3, 4, 5)
    distances = []
    for s, t in zip(student, teacher, strict=True):
        rows = []
        for maps in (s, t):
            row = [(maps[c, :, w] ** 2).sum() for c in range(3) for w in range(5)]
            row = torch.stack(row + [(maps[c, h] ** 2).sum() for c in range(3) for h in range(4)])
            rows.append(row / row.norm())
        distances.append((rows[0] - rows[1]).norm())
    assert_close(pooled_distance(student, teacher), sum(distances) / 2)


def test_pooled_distance_of_equal_maps_is_zero_with_a_finite_gradient():
    maps = rand(2, 3, 4, 4).requires_grad_()
    loss = pooled_distance(maps, maps.detach())  # as at the start of a task
    loss.backward()
    assert loss.item() == 0
    assert (maps.grad == 0).all()


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0], [0, 0, 0, 0, 0, 0], [4, 4, 1, 2, 3, 0]])
def test_supervised_contrastive_against_a_loop(labels):
    features, temperature, terms = rand(6, 5), 0.3, []
    unit = [f / f.norm() for f in features]
    for i in range(6):
        positives = [p for p in range(6) if p != i and labels[p] == labels[i]]
        below = sum(torch.exp(unit[i] @ unit[a] / temperature) for a in range(6) if a != i)
        logs = [torch.log(torch.exp(unit[i] @ unit[p] / temperature) / below) for p in positives]
        terms += [-sum(logs) / len(logs)] if logs else []
    assert_close(supervised_contrastive(features, torch.tensor(labels), temperature), sum(terms) / len(terms))


@pytest.mark.parametrize("count", [1, 3])
def test_no_sample_with_a_partner(count):
    features = rand(count, 5).requires_grad_()
    loss = supervised_contrastive(features, torch.arange(count))
    loss.backward()
    assert loss.item() == 0
    assert (features.grad == 0).all()


@pytest.mark.parametrize("loss", [distillation, cosine_distance, pooled_distance])
def test_other_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=r"the student's tensor has the shape \(2, 3.*\(2, 4.*; give both the"):
        loss(rand(2, 3, 1, 1), rand(2, 4, 1, 1))
