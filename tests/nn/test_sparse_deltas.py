"""Sparse changes: choice among all tensors, sums and their undoing bit for bit, files, and other base models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.nn.sparse_deltas import SparseDelta, compose, largest_changes, weights_fingerprint


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(4, 3, generator=generator),
        "b": torch.randn(5, generator=generator),
        "c": torch.tensor(1.0),
    }


def changed(base: dict[str, Tensor], places: list[int]) -> SparseDelta:
    after = {name: weight.clone() for name, weight in base.items()}
    after["a"].view(-1)[places] += torch.tensor([0.1, -0.7, 1 / 3])[: len(places)]
    after["c"] += 2.0
    return SparseDelta.between(base, after, weights_fingerprint(base))


@pytest.mark.parametrize(("ties", "chosen"), [("first", [0, 2]), ("all", [0, 2, 3])])
def test_equal_changes(ties: str, chosen: list[int]) -> None:
    """Changes 0.5, -0.2, 0.3, -0.3, 0.05 and two to choose: the threshold is 0.3."""
    changes = {"w": torch.tensor([0.5, -0.2, 0.3, -0.3, 0.05])}
    found = largest_changes(changes, 2, ties=ties)["w"]  # type: ignore[arg-type]
    assert found.nonzero().flatten().tolist() == chosen


def test_one_threshold_holds_for_all_tensors() -> None:
    changes = {"a": torch.tensor([[1.0, -5.0]]), "b": torch.tensor([4.0, 2.0, -3.0]), "c": torch.tensor(0.1)}
    found = largest_changes(changes, 3)
    assert [found[name].tolist() for name in "abc"] == [[[False, True]], [True, False, True], False]
    free = {"a": torch.tensor([[True, False]]), "b": torch.tensor([False, True, True]), "c": torch.tensor(False)}
    assert sum(int(mask.sum()) for mask in largest_changes(changes, 9, free).values()) == 3


def test_what_is_added_and_taken_back_leaves_no_bit() -> None:
    base = weights()
    one, two = changed(base, [0, 5, 11]), changed(base, [5, 7])
    alone, both = compose(base, [(one, 1)]), compose(base, [(one, 1), (two, 1)])
    back = compose(base, [(one, 1), (two, 1), (two, -1)])
    for name in base:
        assert torch.equal(back[name], alone[name])
        expected = base[name].clone()
        for delta in (one, two):
            if name in delta.places:
                expected.view(-1)[delta.places[name].long()] += delta.values[name]
        assert torch.equal(both[name], expected)
    assert not torch.equal(both["a"], alone["a"])
    half = compose(base, [(one, 0.5), (two, -1)])["a"].view(-1)
    assert_close(half - base["a"].view(-1), 0.5 * (alone["a"] - base["a"]).view(-1) - (both["a"] - alone["a"]).view(-1))
    nothing = compose(base, [(one, 1), (one, -1)])
    assert all(torch.equal(nothing[name], base[name]) for name in base)


def test_it_is_shipped_without_the_model(tmp_path: Path) -> None:
    base, file = weights(), tmp_path / "delta.pt"
    delta = changed(base, [0, 5, 11])
    delta.save(file)
    found = SparseDelta.load(file)
    assert delta.size == found.size == 4
    assert found.places["a"].dtype == torch.int32
    ours, theirs = (compose(base, [(d, 1)]) for d in (delta, found))
    assert all(torch.equal(ours[name], theirs[name]) for name in base)
    torch.save({"other": 1}, file)
    with pytest.raises(ValueError, match="holds no sparse delta"):
        SparseDelta.load(file)


def test_a_change_of_another_model_is_refused_with_both_fingerprints() -> None:
    base, other = weights(), weights(1)
    mine, theirs = weights_fingerprint(base), weights_fingerprint(other)
    with pytest.raises(ValueError, match=f"with the fingerprint {theirs}, but this one has {mine}"):
        compose(base, [(changed(other, [1]), 1)])
    assert weights_fingerprint({name: base[name] for name in "cba"}) == mine
    assert weights_fingerprint({**base, "a": base["a"].view(3, 4)}) != mine
    assert weights_fingerprint({**base, "c": torch.nextafter(base["c"], torch.tensor(2.0))}) != mine
