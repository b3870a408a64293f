"""Joining and gathering nested batches."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest
import torch
from conformance.runs import in_forked_processes

from lightning_cl.nn.replay import gather_rows_of, join, take
from lightning_cl.nn.replay.batches import check_rows

Sample = namedtuple("Sample", ["image", "label"])


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (torch.arange(2), torch.arange(3), torch.tensor([0, 1, 0, 1, 2])),
        ((torch.ones(1, 2), ["a"]), (torch.zeros(1, 2), ["b"]), (torch.tensor([[1.0, 1], [0, 0]]), ["a", "b"])),
        ([torch.ones(1), ("a",)], [torch.zeros(1), ["b"]], [torch.tensor([1.0, 0]), ("a", "b")]),
        (
            {"x": {"y": torch.ones(1)}, "n": [None]},
            {"n": [None], "x": {"y": torch.zeros(1)}},
            {"x": {"y": torch.tensor([1.0, 0])}, "n": [None, None]},
        ),
    ],
)
def test_join_puts_rows_behind(first, second, joined):
    made = join(first, second)
    assert type(made) is type(joined)
    if isinstance(joined, list):
        assert type(made[1]) is tuple
    assert str(made) == str(joined)


def test_types_of_batches_stay():
    batch = Sample(torch.ones(2, 1), torch.arange(2))
    made = join(batch, (torch.zeros(1, 1), torch.tensor([5])))  # the memory holds plain tuples
    assert type(made) is Sample
    assert made.label.tolist() == [0, 1, 5]
    assert type(take(batch, torch.tensor([1]))) is Sample
    ordered = OrderedDict(b=torch.ones(1), a=torch.ones(1))
    assert type(join(ordered, dict(ordered))) is OrderedDict
    assert list(join(ordered, {"a": torch.ones(1), "b": torch.ones(1)})) == ["b", "a"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            (torch.ones(2, 8), torch.arange(2)),
            (torch.ones(2, 9), torch.arange(2)),
            r"`batch\[0\]` has rows of shape \(8,\)",
        ),
        ({"y": torch.ones(2)}, {"y": torch.arange(2)}, r"`batch\['y'\]`.*torch.float32 in the stream.*torch.int64"),
        ({"y": torch.ones(2)}, {"z": torch.ones(2)}, r"`batch` is a dictionary with the keys \['y'\] in the stream"),
        ((torch.ones(2),), (torch.ones(2), torch.ones(2)), r"`batch` is a tuple of 1 in the stream, but a tuple of 2"),
        ([torch.ones(1), ["a"]], [torch.ones(1), torch.ones(1)], r"`batch\[1\]` is a list of 1.*a Tensor"),
        ((torch.ones(1), {1, 2}), (torch.ones(1), {1}), r"`batch\[1\]` is a set"),
    ],
)
def test_what_does_not_fit_is_named(first, second, said):
    with pytest.raises(ValueError, match=said):
        join(first, second)


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (torch.tensor(3.0), r"a tensor of shape \(\)"),
        (torch.ones(3), r"a tensor of shape \(3,\)"),
        (["a"], "a list of 1 values"),
        ({4, 5}, "a set"),
        (0.5, "a float"),
    ],
)
def test_a_leaf_without_a_row_per_sample_is_named(leaf, said):
    with pytest.raises(ValueError, match=rf"`batch\['z'\]\[0\]` is {said}, but replay needs one row for each of the 2"):
        check_rows({"x": torch.ones(2, 1), "z": (leaf, torch.ones(2))}, 2)


DTYPES = [torch.uint8, torch.bool, torch.int16, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def test_processes_gather_bit_for_bit(tmp_path):
    whole = {str(d): torch.arange(-6, 15).view(7, 3).mul(0.7).to(d) for d in DTYPES}
    whole |= {"label": torch.arange(7), "name": [f"n{i}" for i in range(7)], "empty": torch.zeros(7, 0)}

    def rank() -> None:
        mine = int(torch.distributed.get_rank())
        for sizes in ([4, 3], [7, 0], [0, 7]):
            start = sum(sizes[:mine])
            part = take(whole, torch.arange(start, start + sizes[mine]))
            gathered = gather_rows_of(part, sizes)
            for name, expected in whole.items():
                assert str(gathered[name]) == str(expected), (name, sizes)
                assert not isinstance(expected, torch.Tensor) or torch.equal(gathered[name], expected)

    def started() -> None:
        torch.distributed.init_process_group("gloo")
        rank()

    assert in_forked_processes(started, count=2) == [0, 0]
    assert gather_rows_of(whole, [7]) is whole
