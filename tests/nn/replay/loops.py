"""Plain loops over single items, typed from the papers and not from our code."""

from __future__ import annotations

import torch


def uniform(generator):
    return float(torch.rand(1, dtype=torch.float64, generator=generator))


class ReservoirLoop:
    """Algorithm R: append while there is room, then replace slot j ~ U{0..s} if j is a slot."""

    def __init__(self, capacity):
        self.capacity, self.slots, self.seen = capacity, {}, 0

    def offer(self, item, label, generator):
        if len(self.slots) < self.capacity:
            self.slots[len(self.slots)] = (item, label)
        else:
            j = int(uniform(generator) * (self.seen + 1))
            if j < self.capacity:
                self.slots[j] = (item, label)
        self.seen += 1


class BalancedLoop:
    """CBRS, algorithm 1."""

    def __init__(self, capacity):
        self.capacity, self.slots, self.seen, self.full = capacity, {}, {}, set()

    def of(self, *labels):
        return [slot for slot in range(self.capacity) if slot in self.slots and self.slots[slot][1] in labels]

    def offer(self, item, label, generator):
        self.seen[label] = self.seen.get(label, 0) + 1
        if len(self.slots) < self.capacity:
            self.slots[len(self.slots)] = (item, label)
            return
        first, second = uniform(generator), uniform(generator)
        held = [c for _, c in self.slots.values()]
        counts = {c: held.count(c) for c in held}
        largest = [c for c in counts if counts[c] == max(counts.values())]
        self.full.update(largest)
        if label not in self.full:
            among = self.of(*largest)
            self.slots[among[int(first * len(among))]] = (item, label)
        elif first * self.seen[label] < counts.get(label, 0):
            among = self.of(label)
            self.slots[among[int(second * len(among))]] = (item, label)


class GreedyLoop:
    """GDumb, algorithm 1, with whole shares."""

    def __init__(self, capacity):
        self.capacity, self.slots, self.classes = capacity, {}, set()

    def offer(self, item, label, generator):
        self.classes.add(label)
        held = [c for _, c in self.slots.values()]
        if held.count(label) >= max(1, self.capacity // len(self.classes)):
            return
        if len(held) < self.capacity:
            slot = min(set(range(self.capacity)) - set(self.slots))
        else:
            largest = max(sorted(set(held)), key=held.count)
            among = [slot for slot in range(self.capacity) if self.slots[slot][1] == largest]
            slot = among[int(torch.randint(len(among), (), generator=generator))]
        self.slots[slot] = (item, label)


class RingLoop:
    """One queue per class."""

    def __init__(self, capacity, num_classes):
        self.size, self.queues = capacity // num_classes, [[] for _ in range(num_classes)]

    def offer(self, item, label, generator):
        self.queues[label] = [*self.queues[label], item][-self.size :]


def assert_same_state(actual, expected, path="state"):
    """Equal in structure, types and bits."""
    assert type(actual) is type(expected), path
    if isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype, path
        assert torch.equal(actual, expected), path
    elif isinstance(expected, dict):
        assert list(actual) == list(expected), path
        for key in expected:
            assert_same_state(actual[key], expected[key], f"{path}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), path
        for number, part in enumerate(expected):
            assert_same_state(actual[number], part, f"{path}[{number}]")
    else:
        assert actual == expected, path


def herding_loop(features, count):
    """iCaRL, algorithm 4, without choosing an item twice."""
    unit = [f / f.norm() for f in features.double()]
    mean, chosen = sum(unit) / len(unit), []
    for k in range(1, min(count, len(unit)) + 1):
        distances = {
            row: float((mean - (f + sum(unit[j] for j in chosen)) / k).norm())
            for row, f in enumerate(unit)
            if row not in chosen
        }
        chosen.append(min(distances, key=distances.get))
    return chosen
