from __future__ import annotations

import torch

from lightning_cl.nn.replay import ReplayBuffer, SampleImportance
from lightning_cl.nn.replay.importance import taken_from_stream


def full(labels):
    buffer = ReplayBuffer(len(labels), SampleImportance())
    buffer.add(torch.arange(len(labels)), torch.tensor(labels))
    return buffer, buffer.policy


def test_the_newcomer_always_enters_and_the_largest_class_gives_up_its_least_important_item():
    buffer, policy = full([0, 0, 0, 1, 1])
    policy.importance = torch.tensor([3.0, -1.0, 2.0, -9.0, -8.0], dtype=torch.float64)
    buffer.add(torch.tensor([7]), torch.tensor([2]))
    assert buffer.labels.tolist() == [0, 2, 0, 1, 1]
    assert float(policy.importance[1]) == float(torch.tensor([3.0, 2, -9, -8]).mean())  # a new class: as all are
    buffer.add(torch.tensor([8]), torch.tensor([1]))  # with it, class 1 has three
    assert buffer.labels.tolist() == [0, 2, 0, 1, 1]
    assert buffer.read(torch.tensor([3])).tolist() == [8]
    assert float(policy.importance[3]) == -8.0  # as its class is


def test_the_largest_class_gives_away_in_any_stream():
    labels = torch.randint(4, (300,), generator=torch.Generator().manual_seed(0))
    buffer = ReplayBuffer(10, SampleImportance())
    for row, label in enumerate(labels):
        before = buffer.labels.clone()
        buffer.add(torch.tensor([row]), label[None])
        assert row in buffer.read(buffer.used).tolist()
        if row >= 10:
            counts = torch.bincount(before, minlength=4)
            counts[label] += 1
            lost = counts - torch.bincount(buffer.labels, minlength=4)
            assert int(counts[lost.argmax()]) == int(counts.max())
    assert buffer.policy.seen == 300
    assert buffer.policy.first.tolist() == [int((labels == c).nonzero()[0]) for c in range(4)]


def test_training_that_lowered_the_losses_makes_what_was_used_important():
    buffer, policy = full([0, 1, 2])
    policy.importance += 1.0
    policy.refresh(buffer.used, torch.tensor([2.0, 2.0, 2.0]))
    assert policy.importance.tolist() == [1.0, 1.0, 1.0]  # nothing to compare with yet
    policy.use(torch.tensor([0, 2]))
    policy.refresh(buffer.used, torch.tensor([1.0, 1.5, 2.0]))
    change = (-1.0 - 0.5 + 0.0) / 3
    wanted = 1.0 - 0.1 * (change - 1.0 / 2)
    torch.testing.assert_close(policy.importance, torch.tensor([wanted, 1.0, wanted]).double())
    assert not policy.used.any()


def test_a_batch_is_its_rows_one_by_one_and_the_state_comes_back():
    labels = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
    at_once, singly = (ReplayBuffer(7, SampleImportance()) for _ in range(2))
    at_once.add(torch.arange(40), labels)
    for row in range(40):
        singly.add(torch.tensor([row]), labels[row : row + 1])
    assert at_once.read(at_once.used).tolist() == singly.read(singly.used).tolist()
    again = ReplayBuffer(7, SampleImportance())
    again.load_state_dict(at_once.state_dict())
    at_once.add(torch.tensor([50]), torch.tensor([1]))
    again.add(torch.tensor([50]), torch.tensor([1]))
    assert again.read(again.used).tolist() == at_once.read(at_once.used).tolist()
    assert again.policy.first.tolist() == at_once.policy.first.tolist()


def test_new_classes_come_from_the_memory_and_known_ones_from_the_stream():
    policy = SampleImportance()
    policy.seen, policy.first = 50, torch.tensor([0, 30, -1])
    labels = torch.tensor([0, 1, 2, 2]).repeat(2000)[:4]
    drawn = torch.stack(
        [taken_from_stream(policy, labels, 300, 1.0, torch.Generator().manual_seed(s)) for s in range(4000)]
    )
    wanted = torch.tensor([50 / 300 * 3, (51 - 30) / 300 * 3, 0.0, 3 / 300])
    torch.testing.assert_close(drawn.double().mean(dim=0), wanted.double(), atol=0.03, rtol=0.0)
    assert not drawn[:, 2].any()  # the first of its class
    policy.seen = 150  # after N / K samples
    taken = taken_from_stream(policy, torch.tensor([0, 1]), 300, 1.0, torch.Generator())
    assert taken.tolist() == [True, True]
    assert policy.first.tolist() == [0, 30, -1]
