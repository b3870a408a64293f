"""OnPro's losses against loops, and which samples of the memory are mixed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_cl.nn.online_prototypes import (
    class_contrast,
    class_means,
    draw_mixture,
    instance_contrast,
    pair_shares,
    prototype_contrast,
    whole_counts,
)


def rows(count: int, width: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_contrast_of_prototypes_against_a_loop_and_in_any_order_of_classes():
    first, second = rows(3), rows(3, seed=1)
    both, terms = F.normalize(torch.cat([first, second]), dim=1), []
    for i in range(6):
        below = sum(torch.exp(both[i] @ both[j] / 0.5) for j in range(6) if j != i)
        terms.append(-torch.log(torch.exp(both[i] @ both[(i + 3) % 6] / 0.5) / below))
    found = prototype_contrast(first, second)
    torch.testing.assert_close(found, torch.stack(terms).mean())
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(prototype_contrast(first[order], second[order]), found)
    assert prototype_contrast(first[:1], second[:1]) == 0


def test_means_of_the_classes_present_only():
    means, classes = class_means(torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]]), torch.tensor([7, 7, 2]))
    assert classes.tolist() == [2, 7]
    assert means.tolist() == [[5.0, 5.0], [2.0, 1.0]]


def test_the_contrast_of_instances_against_loops():
    """The gradient is that of the official code's sums, whose rows count themselves with a constant."""
    x = rows(6, 6).requires_grad_()
    labels = torch.tensor([0, 1, 0, 0, 1, 0])  # rows i and i + 3 are views of one image
    similarity, pairs, classes = x @ x.T, [], []
    for i in range(6):
        log_p = {j: similarity[i, j] - torch.logsumexp(similarity[i][torch.arange(6) != i], 0) for j in range(6)}
        pairs.append(-log_p[(i + 3) % 6])
        same = [j for j in range(6) if labels[j] == labels[i]]
        classes.append(-sum(log_p[j] for j in same if j != i) / len(same))
    torch.testing.assert_close(instance_contrast(similarity, labels), (sum(pairs) + 2 * sum(classes)) / 6)


def test_the_contrast_of_the_memory_counts_a_row_itself_and_asks_some():
    similarity, labels = rows(5, 5), torch.tensor([0.0, 0.4, 0.0, 0.4, 0.1])
    asked, terms = torch.tensor([True, True, False, True, True]), []
    for i in asked.nonzero().flatten().tolist():
        log_p = similarity[i] - torch.logsumexp(similarity[i], 0)
        terms.append(-torch.stack([log_p[j] for j in range(5) if labels[j] == labels[i]]).mean())
    torch.testing.assert_close(class_contrast(similarity, labels, asked), torch.stack(terms).mean())
    assert class_contrast(similarity, labels, torch.zeros(5, dtype=torch.bool)) == 0


def test_pairs_that_are_closer_come_more_often():
    prototypes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    before = pair_shares(prototypes)
    distances = torch.tensor([1.0, 3.0, 10**0.5], dtype=torch.float64)
    torch.testing.assert_close(before, (1 / distances).softmax(0))
    prototypes[1, 0] = 0.5
    assert pair_shares(prototypes)[0] > before[0]
    assert pair_shares(torch.zeros(3, 2)).isfinite().all()  # alike


@pytest.mark.parametrize("quota", [0, 1, 7, 20])
def test_whole_counts_sum_to_the_quota(quota: int):
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = whole_counts(shares, quota)
    assert counts.sum() == quota
    assert ((counts - quota * shares).abs() < 1).all()


def test_a_batch_of_random_samples_and_of_pairs():
    held = torch.tensor([0, 0, 1, 1, 2, -1, 0])
    prototypes = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [4.0, 4.0]]), torch.tensor([0, 1, 2, 3])
    first, second, share = draw_mixture(held, prototypes, 10, 0.4, 1.0, 3)
    assert len(first) == len(second) == len(share) == 10
    assert (held[first] >= 0).all()
    assert (held[second] >= 0).all()
    assert len(set(first[:4].tolist())) == 4  # random ones are different from each other
    assert (share[:4] <= 0.6).all()
    assert held[first[4:]].tolist() == [0] * 6  # nearly all shares are of the pair (0, 1)
    assert held[second[4:]].tolist() == [1] * 6
    again = draw_mixture(held, prototypes, 10, 0.4, 1.0, 3)
    assert all(torch.equal(a, b) for a, b in zip(again, (first, second, share), strict=True))


def test_without_prototypes_or_with_all_of_them_random_it_is_plain_replay():
    held = torch.tensor([0, 0, 1, 1, 2, -1, 0])
    prototypes = torch.rand(3, 2), torch.tensor([0, 1, 2])
    for known, random in ((None, 0.4), (prototypes, 1.0)):
        first, second, share = draw_mixture(held, known, 4, random, 0.0, 1)
        assert len(set(first.tolist())) == 4
        assert sorted(second.tolist()) == sorted(first.tolist())
        assert not share.any()
    assert len(draw_mixture(held, None, 10, 1.0, 0.5, 1).first) == 6  # no more than there are
    mixed = torch.cat([draw_mixture(held, None, 6, 1.0, 0.25, seed).share > 0 for seed in range(200)])
    assert 0.2 < mixed.double().mean() < 0.3
