from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import StreamTable

LABELS = torch.tensor([4, 5, 6, 7])
GOLDEN = "be30eb5be747c5d443287d9ffe1127f3564e0f0d3b33f114cc786364b749c4e9"


def table():
    return StreamTable.from_tasks([torch.tensor([2, 0]), torch.tensor([3])], LABELS)


def test_columns():
    made = table()
    assert len(made) == 3
    assert made.sample.tolist() == [2, 0, 3]
    assert made.task.tolist() == [0, 0, 1]
    assert made.position.tolist() == [0, 1, 0]
    assert made.label.tolist() == [6, 4, 7]
    assert [task.tolist() for task in made.tasks()] == [[2, 0], [3]]


def test_hash_is_a_golden_value():  # a change here changes the fingerprint of every published stream
    assert table().hash == GOLDEN
    assert repr(table()) == f"StreamTable(3 rows, 2 tasks, hash {GOLDEN[:12]})"


def test_hash_does_not_depend_on_the_order_of_the_rows():
    shuffled = StreamTable(sample=[3, 0, 2], task=[1, 0, 0], position=[0, 1, 0], label=[7, 4, 6])
    assert shuffled.hash == GOLDEN
    assert shuffled == table()
    assert hash(shuffled) == hash(table())


@pytest.mark.parametrize(
    "tasks", [[[0, 2], [3]], [[2, 0, 3]], [[2], [0, 3]], [[3], [2, 0]], [[2, 0], [1]], [[2, 0], [3], [3]]]
)
def test_hash_tells_streams_apart(tasks):
    assert StreamTable.from_tasks([torch.tensor(task) for task in tasks], LABELS).hash != GOLDEN
    assert StreamTable.from_tasks(table().tasks(), LABELS + 1).hash != GOLDEN


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=5))
def test_files_bring_everything_back(tmp_path_factory, tasks):
    made = StreamTable.from_tasks([torch.tensor(task) for task in tasks], torch.arange(10) - 1)  # -1: a hidden label
    folder = tmp_path_factory.mktemp("tables")
    made.to_csv(folder / "stream.csv")
    assert StreamTable.from_csv(folder / "stream.csv").hash == made.hash
    assert [task.tolist() for task in made.tasks()] == tasks


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    made = table()
    made.to_parquet(tmp_path / "stream.parquet")
    assert StreamTable.from_parquet(tmp_path / "stream.parquet") == made
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"sample": [0], "task": [0]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"'other.parquet' lacks the columns \['position', 'label'\]"):
        StreamTable.from_parquet(tmp_path / "other.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (table().to_parquet, StreamTable.from_parquet):
        with pytest.raises(ImportError, match=r"pip install lightning-cl\[parquet\]"):
            call(tmp_path / "stream.parquet")


def test_csv_is_plain(tmp_path):
    table().to_csv(tmp_path / "stream.csv")
    assert (tmp_path / "stream.csv").read_bytes() == b"sample,task,position,label\n2,0,0,6\n0,0,1,4\n3,1,0,7\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sample,task,label\n0,0,0\n",
            r"'stream.csv' lacks the columns \['position'\]; found \['sample', 'task', 'label'\]",
        ),
        ("", "lacks the columns"),
        ("sample,task,position,label\n0,0,0,cat\n", "must hold integers only"),
        ("sample,task,position,label\n0,0\n", "must hold integers only"),
    ],
)
def test_wrong_csv(tmp_path, text, message):
    (tmp_path / "stream.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        StreamTable.from_csv(tmp_path / "stream.csv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0, 1], [0, 0], [0], [0, 0]), "columns differ in length"),
        (([0, 1], [0, 2], [0, 0], [0, 0]), r"the tasks are \[0, 2\]"),
        (([0, 1], [0, 0], [0, 2], [0, 0]), "task 0 has position 2 where 1 is expected"),
        (([0, 1], [0, 0], [0, 0], [0, 0]), "task 0 has position 0 where 1 is expected"),
        (([-1, 1], [0, 0], [0, 1], [0, 0]), "`sample` has the position -1"),
        (([0.5, 1], [0, 0], [0, 1], [0, 0]), "`sample` must be integers"),
    ],
)
def test_wrong_columns(columns, message):
    with pytest.raises(ValueError, match=message):
        StreamTable(*columns)


def test_an_empty_stream(tmp_path):
    empty = StreamTable([], [], [], [])
    assert (len(empty), empty.tasks()) == (0, [])
    empty.to_csv(tmp_path / "empty.csv")
    assert StreamTable.from_csv(tmp_path / "empty.csv") == empty
