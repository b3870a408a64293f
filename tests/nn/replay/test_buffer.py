"""What a buffer stores, draws, counts and saves."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.nn.replay import ClassBalanced, ReplayBuffer, Reservoir, Ring

from .loops import assert_same_state

Pair = namedtuple("Pair", ["image", "name"])


def nested(count, start=0):
    rows = torch.arange(start, start + count)
    image = rows[:, None, None].expand(count, 3, 2).float() / 7
    return {
        "image": image,
        "meta": Pair((rows * 3).to(torch.int16), [f"é{r}" for r in rows.tolist()]),
        "flag": [rows % 2 == 0],
    }


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_an_item_stays_together_with_its_label(sizes, capacity):
    buffer, start = ReplayBuffer(capacity), 0
    for size in sizes:
        buffer.add(nested(size, start), torch.arange(start, start + size))
        start += size
    batch, labels = buffer.sample(100)
    assert len(labels) == len(buffer) == min(capacity, start)
    if start:
        expected = nested(start)
        rows = labels.tolist()
        assert torch.equal(batch["image"], expected["image"][labels])
        assert torch.equal(batch["meta"][0], expected["meta"].image[labels])
        assert batch["meta"][1] == [expected["meta"].name[r] for r in rows]
        assert torch.equal(batch["flag"][0], expected["flag"][0][labels])
        assert sorted(set(rows)) == sorted(rows)


@given(st.integers(0, 30), st.integers(0, 20), st.integers(1, 10))
def test_a_draw_has_no_item_twice(offered, count, capacity):
    buffer = ReplayBuffer(capacity)
    buffer.add(torch.arange(offered), torch.zeros(offered, dtype=torch.long))
    slots = buffer.draw(count)
    assert len(set(slots.tolist())) == len(slots) == min(count, offered, capacity)
    assert bool((buffer.labels[slots] >= 0).all())


def test_draws_are_uniform_over_filled_slots():
    buffer = ReplayBuffer(12, Ring(4))
    labels = torch.tensor([1] * 9 + [3])  # three slots of class 1, one of class 3, the rest empty
    buffer.add(torch.arange(10), labels)
    counts = torch.zeros(12, dtype=torch.float64)
    for _ in range(2000):
        counts[buffer.draw(2)] += 1
    assert counts.nonzero().flatten().tolist() == [3, 4, 5, 9]
    assert float((counts[counts > 0] - 1000).square().sum() / 1000) < 16.3  # chi-square, 3 degrees of freedom


def test_one_slot_and_no_samples():
    buffer = ReplayBuffer(1)
    assert buffer.sample(3)[0] is None
    assert len(buffer.sample(3)[1]) == 0
    buffer.add(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert len(buffer) == 0
    buffer.add(torch.arange(5), torch.arange(5))
    assert len(buffer) == 1
    assert buffer.sample(3)[0].tolist() == buffer.labels.tolist()


@given(st.integers(1, 20), st.integers(1, 9))
def test_bytes_are_exact(capacity, offered):
    index = ReplayBuffer(capacity)
    assert index.nbytes == 8 * capacity  # labels
    index.add(torch.arange(offered), torch.arange(offered))
    assert index.nbytes == (8 + 8) * capacity
    samples = ReplayBuffer(capacity)
    samples.add({"x": torch.zeros(offered, 3, 4, dtype=torch.uint8), "n": ["aé"] * offered}, torch.arange(offered))
    assert samples.nbytes == (8 + 12) * capacity + 3 * min(capacity, offered)
    held = samples.state_dict()
    assert held["items"]["x"].untyped_storage().nbytes() == 12 * capacity


@pytest.mark.parametrize("policy", [Reservoir, ClassBalanced, lambda: Ring(6)], ids=["reservoir", "balanced", "ring"])
@pytest.mark.parametrize("cut", [0, 1, 2, 4])
def test_a_restored_buffer_goes_on_with_the_same_bits(policy, cut, tmp_path):
    def offer(buffer, batches):
        for batch in batches:
            buffer.add(nested(5, 5 * batch), torch.arange(5 * batch, 5 * batch + 5) % 6)
            buffer.sample(2)

    whole = ReplayBuffer(7, policy(), seed=3)
    offer(whole, range(5))
    first = ReplayBuffer(7, policy(), seed=3)
    offer(first, range(cut))
    torch.save(first.state_dict(), tmp_path / "buffer.pt")
    resumed = ReplayBuffer(7, policy(), seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "buffer.pt", weights_only=True))
    offer(resumed, range(cut, 5))
    assert_same_state(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("policy", [Reservoir, ClassBalanced, lambda: Ring(6)], ids=["reservoir", "balanced", "ring"])
def test_what_is_foreseen_is_drawn_and_nothing_changes(policy):
    buffer = ReplayBuffer(7, policy(), seed=3)
    for batch in range(6):
        items = torch.arange(5 * batch, 5 * batch + 5)
        before = buffer.state_dict()
        alone, after = buffer.foresee(4), buffer.foresee(4, items, items % 6)
        assert_same_state(buffer.state_dict(), before)
        if batch:
            assert torch.equal(alone, buffer.sample(4)[0])
            after = buffer.foresee(4, items, items % 6)
        buffer.add(items, items % 6)
        assert torch.equal(after, buffer.sample(4)[0])


def test_a_saved_state_does_not_change_afterwards():
    buffer = ReplayBuffer(4, ClassBalanced())
    buffer.add(nested(4), torch.arange(4))
    state = buffer.state_dict()
    other = ReplayBuffer(4, ClassBalanced())
    other.load_state_dict(state)
    buffer.add(nested(50, 4), torch.arange(4, 54))
    assert state["labels"].tolist() == other.labels.tolist() == [0, 1, 2, 3]
    assert state["items"]["meta"][1] == ["é0", "é1", "é2", "é3"]
    assert torch.equal(other.read(torch.arange(4))["image"], nested(4)["image"])


def test_what_is_stored_is_a_copy():
    image = torch.zeros(2, 3, requires_grad=True)
    buffer = ReplayBuffer(2)
    buffer.add(image, torch.arange(2))
    with torch.no_grad():
        image += 1
    stored = buffer.read(torch.arange(2))
    assert not stored.requires_grad
    assert bool((stored == 0).all())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.rand(3, 5), r"shape \(3, 5\) and type torch.float32"),
        (torch.rand(3), "one integer class id per sample"),
        (torch.tensor([True, False, True]), "torch.bool"),
        (torch.tensor([0, -1, 2]), "the class id -1 is negative"),
    ],
)
def test_labels_must_be_class_ids(labels, said):
    with pytest.raises(ValueError, match=said):
        ReplayBuffer(3).add(torch.arange(3), labels)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="the capacity of a replay buffer is 0; give at least 1 slot"):
        ReplayBuffer(0)
    buffer = ReplayBuffer(3)
    with pytest.raises(ValueError, match=r"`batch\['y'\]` is a tensor of shape \(\)"):
        buffer.add({"x": torch.zeros(2, 3), "y": torch.tensor(1)}, torch.arange(2))
    buffer.add({"x": torch.zeros(2, 3)}, torch.arange(2))
    with pytest.raises(ValueError, match=r"`batch\['x'\]` has rows of shape \(4,\).*\(3,\).*one size"):
        buffer.add({"x": torch.zeros(1, 4)}, torch.arange(1))
    with pytest.raises(ValueError, match=r"'ring' and 3 slots, but this one 'reservoir' and 3"):
        ReplayBuffer(3).load_state_dict(ReplayBuffer(3, Ring(3)).state_dict())
    with pytest.raises(ValueError, match=r"'reservoir' and 3 slots, but this one 'reservoir' and 4"):
        ReplayBuffer(4).load_state_dict(buffer.state_dict())
