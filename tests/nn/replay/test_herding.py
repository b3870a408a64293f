"""Herding against the paper's loop, and the exemplars that a policy keeps of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.nn.replay import Herding, ReplayBuffer, herding

from .loops import assert_same_state, herding_loop


def features(count, width=5, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + 1.0


@given(st.integers(1, 20), st.integers(0, 25), st.integers(0, 1000))
def test_every_choice_is_the_best_that_is_left(count, chosen, seed):
    given_features = features(count, seed=seed)
    order = herding(given_features, chosen).tolist()
    assert len(set(order)) == len(order) == min(chosen, count)
    unit = torch.nn.functional.normalize(given_features.double(), dim=1)
    for k in range(len(order)):
        means = {row: unit[[*order[:k], row]].mean(0) for row in range(count) if row not in order[:k]}
        distances = {row: float((unit.mean(0) - mean).norm()) for row, mean in means.items()}
        assert distances[order[k]] <= min(distances.values()) + 1e-12  # two items are equally far from their mean


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_the_paper(seed):
    given_features = features(20, seed=seed)
    assert herding(given_features, 15).tolist() == herding_loop(given_features, 15)


def test_lengths_do_not_matter_and_a_prefix_is_a_choice():
    given_features = features(12)
    scaled = given_features * torch.linspace(0.1, 30, 12)[:, None]
    assert torch.equal(herding(scaled, 6), herding(given_features, 6))
    assert torch.equal(herding(given_features, 12)[:4], herding(given_features, 4))
    assert sorted(herding(given_features, 99).tolist()) == list(range(12))


def test_few_items_stand_for_the_mean():
    given_features = features(200, seed=3)
    unit = torch.nn.functional.normalize(given_features, dim=1)
    chosen, first = herding(given_features, 20), torch.arange(20)
    assert (unit[chosen].mean(0) - unit.mean(0)).norm() < 0.4 * (unit[first].mean(0) - unit.mean(0)).norm()


def test_equal_items_are_taken_in_order():
    assert herding(torch.ones(4, 3), 3).tolist() == [0, 1, 2]
    assert herding(torch.zeros(0, 3), 3).tolist() == []


def exemplars(buffer, label):
    slots = (buffer.labels == label).nonzero().flatten()
    return sorted(buffer.read(slots).tolist())


def test_every_task_shrinks_the_share_of_a_class():
    buffer, given_features = ReplayBuffer(12, Herding()), features(60)
    for task, share in enumerate((6, 3, 2)):  # two classes a task, ten items each
        rows = torch.arange(20 * task, 20 * task + 20)
        buffer.add(rows, 2 * task + rows % 2, given_features[rows])
        for label in range(2 * task + 2):
            members = torch.arange(60)[(torch.arange(60) // 20 * 2 + torch.arange(60) % 2) == label]
            expected = members[torch.tensor(herding_loop(given_features[members], share))]
            assert exemplars(buffer, label) == sorted(expected.tolist())
    assert len(buffer) == 12


def test_a_class_that_comes_again_is_chosen_anew_and_few_items_leave_room():
    buffer, given_features = ReplayBuffer(10, Herding()), features(30)
    buffer.add(torch.arange(3), torch.zeros(3, dtype=torch.long), given_features[:3])
    assert len(buffer) == 3
    labels = torch.tensor([0] * 10 + [1] * 10)
    buffer.add(torch.arange(10, 30), labels, given_features[10:])
    assert min(exemplars(buffer, 0)) >= 10
    assert torch.bincount(buffer.labels).tolist() == [5, 5]


def test_resumed_exemplars_go_on_as_before():
    buffers, given_features = [ReplayBuffer(9, Herding()) for _ in range(2)], features(40)
    labels = torch.arange(40) // 10
    buffers[0].add(torch.arange(20), labels[:20], given_features[:20])
    buffers[1].load_state_dict(buffers[0].state_dict())
    for buffer in buffers:
        buffer.add(torch.arange(20, 40), labels[20:], given_features[20:])
    assert_same_state(buffers[0].state_dict(), buffers[1].state_dict())


def test_herding_says_what_it_needs():
    with pytest.raises(ValueError, match="chooses by features, but none were given"):
        ReplayBuffer(4, Herding()).add(torch.arange(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="3 classes cannot have an exemplar each in 2 slots"):
        ReplayBuffer(2, Herding()).add(torch.arange(3), torch.arange(3), features(3))
