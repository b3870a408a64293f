"""FSCIL streams: a base session, then ways x shots, drawn or from published lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import ArraySource, ContinualDataModule, FewShot
from lightning_cl.datamodules.scenarios.few_shot import few_shot, session_sizes
from lightning_cl.datamodules.scenarios.index_lists import listed_samples, read_index_lists
from lightning_cl.datamodules.scenarios.table import TableScenario


def shuffled_labels(classes: int, each: int, seed: int = 0) -> torch.Tensor:
    labels = torch.arange(classes).repeat(each)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


@given(
    base=st.integers(1, 6), ways=st.integers(1, 4), sessions=st.integers(1, 4), shots=st.integers(1, 3),
    extra=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_sessions_partition_the_classes_and_have_as_many_shots(base, ways, sessions, shots, extra, seed):
    classes = base + ways * sessions + extra
    labels = shuffled_labels(classes, 4, seed)
    scenario = FewShot(base, ways, shots, sessions=sessions, class_order="shuffled")
    tasks = scenario.train_tasks(labels, None, classes, seed)
    assert len(tasks) == sessions + 1
    held = [labels[index].unique(return_counts=True) for index in tasks]
    assert [len(c) for c, _ in held] == [base, *[ways] * sessions]
    assert len(set().union(*(c.tolist() for c, _ in held))) == base + ways * sessions
    assert held[0][1].tolist() == [4] * base  # all of the base session's data
    assert all(count.tolist() == [shots] * ways for _, count in held[1:])
    assert all(index.equal(index.sort().values) and len(index.unique()) == len(index) for index in tasks)
    again = scenario.train_tasks(labels, None, classes, seed)
    assert all(a.equal(b) for a, b in zip(tasks, again, strict=True))


def test_the_shots_of_a_class_do_not_depend_on_the_other_sessions():
    labels = shuffled_labels(10, 20)
    few, many = few_shot(labels, range(10), [4, 2], 3, 1), few_shot(labels, range(10), [4, 2, 2, 2], 3, 1)
    assert few[1].equal(many[1])
    assert not few[1].equal(few_shot(labels, range(10), [4, 2], 3, 2)[1])


def test_published_sizes():
    assert session_sizes(100, 60, 5) == [60] + [5] * 8
    assert session_sizes(200, 100, 10) == [100] + [10] * 10
    assert session_sizes(100, 60, 5, sessions=3) == [60, 5, 5, 5]


def test_the_layout_evaluates_seen_classes_only_and_the_report_says_how_samples_were_drawn():
    rng = np.random.default_rng(0)
    splits = [(rng.integers(0, 256, (10 * n, 8, 8), dtype=np.uint8), np.repeat(np.arange(10), n)) for n in (6, 2)]
    stream = ContinualDataModule(ArraySource(*splits), FewShot(4, 3, 2))
    assert [len(index) for index in stream.layout.train_index] == [24, 6, 6]
    assert [len(index) for index in stream.layout.evaluation["test"].index] == [8, 6, 6]
    assert "drawn from the seed" in stream.scenario.remarks[0]


# ---------------------------------------------------------------------- published lists


class Named(ArraySource):
    """Images with file names."""

    names: tuple[str, ...] = ()

    def file_names(self, split):
        return self.names


def source_of(labels: torch.Tensor, names: tuple[str, ...] = ()) -> Named:
    images = np.zeros((len(labels), 2, 2), dtype=np.uint8)
    source = Named((images, labels.numpy()), (images, labels.numpy()))
    source.names = names
    source.setup()
    return source


def write_lists(folder: Path, lists: list[list[object]]) -> Path:
    folder.mkdir(parents=True)
    for number, entries in enumerate(lists, 1):
        (folder / f"session_{number}.txt").write_text("\n".join(map(str, entries)) + "\n")
    return folder


LABELS = torch.arange(6).repeat_interleave(4)  # base classes 0 and 1, sessions (2, 3) and (4, 5)
LISTS = [[0, 1, 2, 3, 4, 5, 6, 7], [9, 13], [16, 23]]


def few(folder: Path, **options: object) -> FewShot:
    return FewShot(**{"base_classes": 2, "ways": 2, "shots": 1, "index_lists": folder, **options})


def test_lists_of_numbers(tmp_path):
    scenario = few(write_lists(tmp_path / "lists", LISTS)).for_source(source_of(LABELS))
    assert isinstance(scenario, TableScenario)
    assert [index.tolist() for index in scenario.train_tasks(LABELS, None, 6, 0)] == LISTS


def test_lists_of_files_go_by_class_folder_and_file(tmp_path):
    names = tuple(f"{label}/{i}.jpg" for i, label in enumerate(LABELS.tolist()))
    listed = [[f"CUB_200_2011/images/{names[i]}" for i in entries] for entries in LISTS]
    scenario = few(write_lists(tmp_path / "lists", listed)).for_source(source_of(LABELS, names))
    assert [index.tolist() for index in scenario.train_tasks(LABELS, None, 6, 0)] == LISTS


def test_an_archive_of_several_data_sets(tmp_path):
    arrays = {f"{name}_session_{n}": np.array(e) for name in ("a", "b_c") for n, e in enumerate(LISTS, 1)}
    np.savez(tmp_path / "lists.npz", **arrays)
    assert read_index_lists(tmp_path / "lists.npz", "b_c") == LISTS
    with pytest.raises(ValueError, match="has the lists of a, b_c; choose one with `dataset`"):
        read_index_lists(tmp_path / "lists.npz")
    with pytest.raises(ValueError, match="has no lists of 'd'; it has those of a, b_c"):
        read_index_lists(tmp_path / "lists.npz", "d")


def test_fewer_sessions_than_listed(tmp_path):
    scenario = few(write_lists(tmp_path / "lists", LISTS), sessions=1).for_source(source_of(LABELS))
    assert [index.tolist() for index in scenario.train_tasks(LABELS, None, 6, 0)] == LISTS[:2]


@pytest.mark.parametrize(
    ("dataset", "base", "sessions", "ways"),
    [("cifar100", 60, 8, 5), ("mini_imagenet", 60, 8, 5), ("cub200", 100, 10, 10)],
)
def test_the_published_lists_are_read_as_published(shared_data, dataset, base, sessions, ways):
    lists = read_index_lists(shared_data / "fscil_index_lists.npz", dataset)
    assert len(lists) == sessions + 1
    assert [len(entries) for entries in lists[1:]] == [ways * 5] * sessions
    every = [entry for entries in lists for entry in entries]
    assert len(set(every)) == len(every)
    if dataset == "cifar100":
        assert max(every) < 50_000
        return
    folders = [{str(name).split("/")[-2] for name in entries} for entries in lists]
    assert [len(held) for held in folders] == [base] + [ways] * sessions
    ids = {folder: label for label, folder in enumerate(dict.fromkeys(str(n).split("/")[-2] for n in every))}
    labels = torch.tensor([ids[str(name).split("/")[-2]] for name in every])
    scenario = FewShot(base, ways, 5, index_lists=shared_data / "fscil_index_lists.npz", dataset=dataset)
    tasks = scenario.for_source(source_of(labels, tuple(map(str, every)))).train_tasks(labels, None, base, 0)
    assert [len(index) for index in tasks] == [len(entries) for entries in lists]


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ["base_classes", "ways", "shots", "sessions"])
def test_numbers_must_be_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` is 0; give at least 1"):
        FewShot(**{name: 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 6, 3), "4 are left after the base session, which is no multiple of 3"),
        ((10, 12, 1), "-2 are left after the base session"),
        ((10, 6, 2, 3), "need 12 classes, but there are 10; use at most 2 sessions"),
    ],
)
def test_classes_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        session_sizes(*arguments)


def test_a_class_with_too_few_samples():
    with pytest.raises(ValueError, match=r"the classes \[4\] have fewer than `shots`=3 training samples"):
        few_shot(torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4]), range(5), [2, 3], 3, 0)


def test_a_data_set_without_lists():
    with pytest.raises(ValueError, match="`dataset` is 'cub200' but there are no `index_lists`"):
        FewShot(dataset="cub200")


def test_lists_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there are no index lists in .*index_list of github.com"):
        read_index_lists(tmp_path / "none")
    with pytest.raises(ValueError, match="has no session lists"):
        read_index_lists(tmp_path)
    (write_lists(tmp_path / "gap", LISTS) / "session_2.txt").unlink()
    with pytest.raises(ValueError, match=r"no list of the sessions \[2\]"):
        read_index_lists(tmp_path / "gap")


@pytest.mark.parametrize(
    ("lists", "names", "message"),
    [
        ([[0, 24]], None, "the lists name sample 24 but the training split has 24"),
        ([[0, 0]], None, "listed twice, such as 0"),
        ([[0], [1]], None, "class 0 is in the lists of the sessions 1 and 2"),
        ([["a/1.jpg"]], None, "the source does not name its images"),
        ([["a/1.jpg"]], ["b/2.jpg"] * 24, "1 of 1 listed files are not in the source, such as 'a/1.jpg'"),
    ],
)
def test_lists_that_do_not_fit_the_data(lists, names, message):
    with pytest.raises(ValueError, match=message):
        listed_samples(lists, names, LABELS)


def test_lists_that_do_not_fit_the_numbers(tmp_path):
    folder = write_lists(tmp_path / "lists", LISTS)
    with pytest.raises(
        ValueError, match=r"\[2, 2, 2\] classes per session with \[1\] samples each, but `base_classes`=3"
    ):
        few(folder, base_classes=3).for_source(source_of(LABELS))
    with pytest.raises(ValueError, match="`shots`=5 were asked for"):
        few(folder, shots=5).for_source(source_of(LABELS))
