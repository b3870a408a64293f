"""Adapt-infinity's selection: budgets, entropies and bins by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.nn.data_selection import (
    covering_sample,
    distinct,
    histogram_entropy,
    most_spread,
    pseudo_skills,
    select_samples,
    shared_budget,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_entropy_in_bits() -> None:
    assert histogram_entropy(torch.full((7,), 3.0)) == 0
    assert histogram_entropy(torch.tensor([0.0, 1.0, 2.0, 3.0]), bins=4) == pytest.approx(2)
    assert histogram_entropy(torch.tensor([0.0, 0.0, 0.0, 1.0]), bins=4) == pytest.approx(0.8112781)
    assert histogram_entropy(torch.arange(50.0)) == pytest.approx(5.643856)  # log2 of 50 bins


def test_scores_that_are_all_the_same_are_never_taken() -> None:
    constant, spread = torch.ones(20), torch.linspace(0, 1, 20)
    assert most_spread({"a": constant, "b": spread}) == most_spread({"b": spread, "a": constant}) == "b"


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [([5, 5, 5], 6, [2, 2, 2]), ([1, 9, 9], 9, [1, 4, 4]), ([0, 2, 9], 8, [0, 2, 6]), ([3, 3], 6, [3, 3])],
)
def test_what_small_groups_lack_comes_from_the_others(sizes: list[int], budget: int, expected: list[int]) -> None:
    assert shared_budget(sizes, budget) == expected


def test_a_budget_is_shared_out_whole() -> None:
    for budget in range(20):
        taken = shared_budget([2, 7, 1, 9], min(budget, 19))
        assert sum(taken) == min(budget, 19)
    with pytest.raises(ValueError, match="the budget is 9, but the groups have 4 samples"):
        shared_budget([2, 2], 9)


def test_every_bin_is_covered_and_the_tails_are_left_out() -> None:
    scores = torch.cat([torch.zeros(90), torch.tensor([5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 999.0])])
    chosen = covering_sample(scores, 12, generator(), bins=10)
    assert len(chosen.unique()) == 12
    assert 99 not in chosen  # in the tail
    assert int((scores[chosen] > 0).sum()) >= 5  # though most scores are 0
    assert torch.equal(chosen, covering_sample(scores, 12, generator(), bins=10))
    assert len(covering_sample(scores, 100, generator())) == 100  # all, with their tails


def test_of_two_alike_the_later_goes() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.1, -1.0], [0.0, 3.0]])
    assert distinct(features, 4).tolist() == [0, 1, 2, 3]  # the last is the second
    assert distinct(features, 3).tolist() == [0, 1, 3]
    assert distinct(features, 5).tolist() == [0, 1, 2, 3, 4]


def test_the_budget_is_met_and_every_skill_has_its_share() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).repeat_interleave(torch.tensor([80, 15, 5]), 0)
    features = centres + 0.1 * torch.randn(100, 2, generator=generator())
    skills = pseudo_skills(features, 3)
    assert [len(skills[part].unique()) for part in (slice(80), slice(80, 95), slice(95, 100))] == [1, 1, 1]
    scores = {"constant": torch.ones(100), "spread": torch.rand(100, generator=generator())}
    chosen = select_samples(features, scores, 30, skills=3)
    assert [int(((chosen >= a) & (chosen < b)).sum()) for a, b in ((0, 80), (80, 95), (95, 100))] == [13, 12, 5]
    assert torch.equal(chosen, select_samples(features, scores, 30, skills=3))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"the scores \['a'\], of which \['a'\] have another shape"):
        select_samples(torch.zeros(4, 2), {"a": torch.zeros(3)}, 2)
    with pytest.raises(ValueError, match="the budget is 9, but there are 4 samples; give 1 to 4"):
        select_samples(torch.zeros(4, 2), {"a": torch.zeros(4)}, 9)
