"""Means and answers in several feature spaces against worked numbers and loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.nn.heads.subspaces import SubspaceMeans, refined_logits, subspace_logits, synthesized_means


def test_the_worked_numbers_of_a_synthesised_mean():
    """An old mean (1, 0) and new ones (1, 1), (0, 2) in its space; (2, 0), (0, 4) in the new one."""
    means = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]], [[9.0, 9.0], [2.0, 0.0], [0.0, 4.0]]])
    known = torch.tensor([[True, True, True], [False, True, True]])
    out = synthesized_means(means, known, torch.tensor([0, 1, 1]))
    assert_close(out[1, 0], torch.tensor([1.3395, 1.3210]), rtol=0, atol=1e-4)
    assert torch.equal(out[0], means[0])
    assert torch.equal(out[1, 1:], means[1, 1:])


def by_hand(means, known, task_of):
    """Class by class, and donor by donor."""
    out = means.clone()
    for d in range(len(means)):
        for o in range(means.shape[1]):
            i = int(task_of[o])
            if known[i, o] and not known[d, o] and d > i:
                donors = [j for j in range(means.shape[1]) if known[d, j] and known[i, j]]
                cosines = [F.cosine_similarity(means[i, o], means[i, j], dim=0) for j in donors]
                shares = torch.stack(cosines).softmax(0)
                out[d, o] = sum(s * means[d, j] for s, j in zip(shares, donors, strict=True))
    return out


def test_three_tasks_against_a_loop():
    bank = SubspaceMeans(4, 7, 5)
    generator = torch.Generator().manual_seed(0)
    rows = {t: torch.randn(30, t + 1, 5, generator=generator, dtype=torch.float64) for t in range(3)}
    labels = {t: torch.tensor([2 * t, 2 * t + 1, 2 * t]).repeat(10) for t in range(3)}
    for t in range(3):
        bank.update(rows[t][:11], labels[t][:11])
        bank.update(rows[t][11:], labels[t][11:])
    means, known = torch.zeros(3, 7, 5, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.bool)
    for t in range(3):
        for c in (2 * t, 2 * t + 1):
            means[: t + 1, c] = rows[t][labels[t] == c].mean(0)
            known[: t + 1, c] = True
    task_of = torch.tensor([0, 0, 1, 1, 2, 2, 0])
    full = by_hand(means, known, task_of)
    f = torch.randn(9, 3, 5, generator=generator, dtype=torch.float64)
    expected = torch.full((9, 7), -torch.inf, dtype=torch.float64)
    for c in range(6):
        cosines = [F.cosine_similarity(f[:, p], full[p, c][None]) for p in range(3)]
        own = int(task_of[c])
        expected[:, c] = cosines[own] + 0.3 / 2 * sum(cosines[p] for p in range(3) if p != own)
    assert_close(bank(f, 0.3), expected)
    again = SubspaceMeans(4, 7, 5)
    again(f, 0.3)  # of no data
    again.load_state_dict(bank.state_dict())
    assert_close(again(f, 0.3), expected)


def test_without_others_a_class_answers_in_its_own_space():
    generator = torch.Generator().manual_seed(1)
    f, means = torch.randn(4, 2, 3, generator=generator), torch.randn(2, 3, 3, generator=generator)
    z = subspace_logits(f, means, torch.tensor([0, 1, 0]), 0.0)
    assert_close(z[:, 1], F.cosine_similarity(f[:, 1], means[1, 1][None]))
    assert_close(z[:, 2], F.cosine_similarity(f[:, 0], means[0, 2][None]))


def test_a_sample_goes_from_path_to_path_until_it_stays():
    task_of, known = torch.tensor([0, 1, 2, 2]), torch.tensor([True, True, True, False])
    z = torch.zeros(3, 3, 4)
    z[0, 0, 1], z[0, 1, 2], z[0, 2, 2] = 1.0, 1.0, 2.0  # 0 -> 1 -> 2, stays
    z[1, 0, 0] = 1.0  # stays at once
    z[2, 0, 1], z[2, 1, 0] = 1.0, 3.0  # round in a circle
    z[:, :, 3] = 9.0  # a class that is not known yet
    out = refined_logits(z, torch.tensor([0, 0, 0]), task_of, known)
    assert torch.equal(out[0], z[0, 2])
    assert torch.equal(out[1], z[1, 0])
    assert torch.equal(out[2], z[2, 1])  # looked at 4 times: 0, 1, 0, 1
    assert torch.equal(refined_logits(z, torch.tensor([1, 1, 1]), task_of, known, rounds=1), z[:, 1])
