"""Policies against plain loops over single items, and what they promise of the memory's make-up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_cl.nn.replay import ClassBalanced, GreedyBalanced, ReplayBuffer, Reservoir, Ring

from .loops import BalancedLoop, GreedyLoop, ReservoirLoop, RingLoop

#: Batches of labels: empty ones, ones that fill the memory and overflow it, and many small ones.
streams = st.lists(st.lists(st.integers(0, 4), max_size=25), max_size=12)
capacities = st.integers(1, 12)


def offered(buffer, batches):
    """Offer batches of positions 0, 1, 2, ..."""
    start = 0
    for batch in batches:
        buffer.add(torch.arange(start, start + len(batch)), torch.tensor(batch, dtype=torch.long))
        start += len(batch)
    return buffer


def content(buffer):
    slots = buffer.used
    assert slots.tolist() == [slot for slot, label in enumerate(buffer.labels.tolist()) if label >= 0]
    items = [] if len(slots) == 0 else buffer.read(slots).tolist()
    return dict(zip(slots.tolist(), zip(items, buffer.labels[slots].tolist(), strict=True), strict=True))


@given(streams, capacities, st.integers(0, 5))
@pytest.mark.parametrize(
    ("policy", "loop"), [(Reservoir, ReservoirLoop), (ClassBalanced, BalancedLoop), (GreedyBalanced, GreedyLoop)]
)
def test_a_batch_is_decided_as_its_items_one_by_one(policy, loop, batches, capacity, seed):
    buffer = offered(ReplayBuffer(capacity, policy(), seed=seed), batches)
    expected, generator = loop(capacity), torch.Generator().manual_seed(seed)
    for item, label in enumerate(label for batch in batches for label in batch):
        expected.offer(item, label, generator)
    assert content(buffer) == expected.slots
    assert torch.equal(buffer.generator.get_state(), generator.get_state())  # so that they stay equal


@given(streams, st.integers(5, 30))
def test_the_ring_keeps_the_last_of_every_class(batches, capacity):
    buffer = offered(ReplayBuffer(capacity, Ring(5)), batches)
    expected = RingLoop(capacity, 5)
    for item, label in enumerate(label for batch in batches for label in batch):
        expected.offer(item, label, None)
    held = content(buffer)
    for label, queue in enumerate(expected.queues):
        assert sorted(item for item, c in held.values() if c == label) == queue
        assert all(slot // (capacity // 5) == label for slot, (_, c) in held.items() if c == label)


@given(streams, capacities)
@pytest.mark.parametrize(
    "policy",
    [Reservoir, ClassBalanced, GreedyBalanced, lambda: Ring(5)],
    ids=["reservoir", "balanced", "greedy", "ring"],
)
def test_never_over_capacity_and_nothing_but_what_came(policy, batches, capacity):
    if capacity < 5:
        capacity += 5
    buffer = offered(ReplayBuffer(capacity, policy()), batches)
    stream = [label for batch in batches for label in batch]
    held = list(content(buffer).values())
    assert len(buffer) == len(held) <= min(capacity, len(stream))
    assert len({item for item, _ in held}) == len(held)
    assert all(stream[item] == label for item, label in held)  # raw class ids


@given(streams, capacities)
@pytest.mark.parametrize("policy", [Reservoir, ClassBalanced], ids=["reservoir", "balanced"])
def test_the_memory_is_full_once_enough_came(policy, batches, capacity):
    buffer = offered(ReplayBuffer(capacity, policy()), batches)
    assert len(buffer) == min(capacity, sum(map(len, batches)))


def chi_square(counts, expected):
    return float(((counts - expected).square() / expected).sum())


@pytest.mark.parametrize("batch", [13, 40])
def test_every_item_is_kept_with_the_same_probability(batch):
    runs, capacity, length = 2000, 6, 40
    kept = torch.zeros(length, dtype=torch.float64)
    items, labels = torch.arange(length), torch.zeros(length, dtype=torch.long)
    for seed in range(runs):
        buffer = ReplayBuffer(capacity, Reservoir(), seed=seed)
        for part in items.split(batch):
            buffer.add(part, labels[: len(part)])
        kept[buffer.read(torch.arange(capacity))] += 1
    assert kept.sum() == runs * capacity
    # Kept items are drawn without replacement, so the statistic is (1 - capacity / length) times a chi-square of 39
    # degrees of freedom: 72.1 is exceeded once in 1,000 times.
    assert chi_square(kept, runs * capacity / length) / (1 - capacity / length) < 72.1


def test_within_a_class_the_balanced_memory_is_a_reservoir():
    runs, length = 2000, 30
    kept = torch.zeros(2 * length, dtype=torch.float64)
    items, labels = torch.arange(2 * length), torch.arange(2 * length) % 2
    for seed in range(runs):
        buffer = ReplayBuffer(8, ClassBalanced(), seed=seed)
        for part, classes in zip(items.split(25), labels.split(25), strict=True):
            buffer.add(part, classes)
        kept[buffer.read(torch.arange(8))] += 1
    assert chi_square(kept, kept.sum() / (2 * length)) < 100.9  # 59 degrees of freedom, p = 0.0005


@given(st.permutations([0] * 40 + [1] * 12 + [2] * 5 + [3] * 2), st.integers(1, 9))
@settings(max_examples=30)
def test_classes_share_the_memory_as_far_as_they_go(labels, batch):
    batches = [labels[i : i + batch] for i in range(0, len(labels), batch)]
    counts = torch.bincount(offered(ReplayBuffer(12, ClassBalanced()), batches).labels, minlength=4).tolist()
    assert counts[3] <= 2
    assert counts[2] <= 5
    # All of class 3 is kept that came when it was not yet full; with room for 3 of each class nobody has over 4.
    assert max(counts) <= 5
    assert sum(counts) == 12


def test_sorted_classes_end_in_equal_shares():
    batches = [[c] * 10 for c in range(4) for _ in range(10)]
    labels = offered(ReplayBuffer(20, ClassBalanced()), batches).labels
    assert torch.bincount(labels).tolist() == [5, 5, 5, 5]


def test_a_ring_needs_a_slot_for_every_class():
    with pytest.raises(ValueError, match="a ring of 4 slots has none for each of 5 classes"):
        ReplayBuffer(4, Ring(5)).add(torch.arange(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="label 5 is out of range for a ring of 5 classes"):
        ReplayBuffer(5, Ring(5)).add(torch.arange(1), torch.tensor([5]))
    with pytest.raises(ValueError, match="the saved ring has shares for 4 classes, but this one for 5"):
        ReplayBuffer(5, Ring(5)).load_state_dict(ReplayBuffer(5, Ring(4)).state_dict())


def test_greedy_shares_are_equal_at_any_time():
    """Three classes of 100 items, one after the other, in 30 slots: 30, then 15 each, then 10 each."""
    buffer = ReplayBuffer(30, GreedyBalanced())
    for task, expected in enumerate([[30], [15, 15], [10, 10, 10]]):
        offered(buffer, [[task] * 20] * 5)
        assert torch.bincount(buffer.labels).tolist() == expected
    for _ in range(20):  # whatever comes then
        offered(buffer, [torch.randint(3, (7,)).tolist()])
        assert torch.bincount(buffer.labels).tolist() == [10, 10, 10]


def test_greedy_goes_on_after_loading():
    first, second = ReplayBuffer(7, GreedyBalanced(), seed=3), ReplayBuffer(7, GreedyBalanced(), seed=5)
    offered(first, [[0, 1, 1, 0, 0, 0, 0, 1]])
    second.load_state_dict(first.state_dict())
    for buffer in (first, second):
        offered(buffer, [[2, 0, 3, 2, 2]])
    assert content(first) == content(second)
