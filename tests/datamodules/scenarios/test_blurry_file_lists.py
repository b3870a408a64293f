from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cl.datamodules import ArraySource, BlurryFileLists, ContinualDataModule, ImageFolder, PowerLaw
from lightning_cl.datamodules.scenarios.blurry_file_lists import list_paths, listed_positions, read_json_list

CLASSES = ("ant", "bee", "train")  # a class may have the name of the split
#: Two tasks in order of arrival; ``bee`` is in both.
TASKS = (["train/3", "bee/0", "ant/1", "ant/0"], ["bee/2", "train/0", "bee/1"])


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 4), ("test", 1)):
        for name in CLASSES:
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / name / f"{i}.png")
    return tmp_path


def entry(name, prefix="train/", label=7):
    return {"klass": name.split("/")[0], "file_name": f"{prefix}{name}.png", "label": label}


def write_lists(folder, tasks=TASKS, **options):
    paths = [folder / f"toy_rand1_task{task}.json" for task in range(len(tasks))]
    for path, names in zip(paths, tasks, strict=True):
        path.write_text(json.dumps([entry(name, **options) for name in names]).replace("/", r"\/"))
    return paths


def opened(folder):
    source = ImageFolder(folder / "images", image_size=8)
    source.setup()
    return source


def names_of(source, tasks):
    return [[source.file_names("train")[i].removesuffix(".png") for i in task] for task in tasks]


@pytest.mark.parametrize("prefix", ["train/", "data/toy/train/", ""])
def test_samples_arrive_in_the_order_of_the_lists(folder, prefix):
    # Without a split's folder a class of that name cannot be told from it.
    tasks = [[name for name in task if prefix or not name.startswith("train")] for task in TASKS]
    lists = write_lists(folder, tasks, prefix=prefix)
    stream = ContinualDataModule(ImageFolder(folder / "images", image_size=8), BlurryFileLists(lists))
    with pytest.warns(UserWarning, match=r"the file lists leave out \d of the source's 12 training images"):
        stream.setup()
    assert names_of(stream.source, stream.table().tasks()) == tasks
    assert stream.task_at(0).order == "stream"


def test_class_ids_and_evaluation_are_the_source_s(folder):
    stream = ContinualDataModule(opened(folder), BlurryFileLists(write_lists(folder)))
    with pytest.warns(UserWarning, match="leave out 5 of"):
        assert stream.info.classes_per_task == ((0, 1, 2), (1, 2))
    assert [len(index) for index in stream.layout.evaluation["test"].index] == [3, 0]
    assert stream.table().label.tolist() == [2, 1, 0, 0, 1, 2, 1]


@pytest.mark.filterwarnings("ignore:the file lists leave out")
def test_a_pattern_finds_all_tasks(folder):
    paths = write_lists(folder)
    assert list_paths(str(folder / "toy_rand1_task{task}.json")) == paths
    by_pattern, by_path = (
        ContinualDataModule(opened(folder), BlurryFileLists(lists)).table()
        for lists in (folder / "toy_rand1_task{task}.json", [str(path) for path in paths])
    )
    assert by_pattern == by_path


@pytest.mark.filterwarnings("ignore:the file lists leave out")
def test_old_tasks_may_come_back(folder):
    scenario = PowerLaw(BlurryFileLists(write_lists(folder)), mode="counts", samples=2)
    stream = ContinualDataModule(opened(folder), scenario)
    assert [len(task) for task in stream.table().tasks()] == [4, 5]
    assert isinstance(scenario.tasks, BlurryFileLists)  # what a user made is left as it was


def test_lists_fix_every_sample(folder):
    stream = ContinualDataModule(opened(folder), BlurryFileLists(write_lists(folder)), val_split=0.5)
    with (
        pytest.warns(UserWarning, match="leave out 5 of"),
        pytest.raises(ValueError, match="fixes every training sample, so `val_split` cannot hold any out"),
    ):
        stream.setup()


def test_labels_alone_are_not_enough():
    with pytest.raises(ValueError, match="needs the names of the source's files"):
        BlurryFileLists(["a.json"]).train_tasks(torch.tensor([0]), None, 1, 0)


def test_a_source_without_names(folder):
    data = (np.zeros((2, 8, 8), np.uint8), np.arange(2))
    with pytest.raises(ValueError, match="ArraySource does not name its images, so file lists cannot find them"):
        ContinualDataModule(ArraySource(data, data), BlurryFileLists(write_lists(folder))).setup()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            [["ant/0", "wasp/1"], ["bee/9"]],
            "2 of 3 listed files are not in the source, such as 'wasp/1.png'; its .* names such as 'ant/0.png'",
        ),
        (
            [["ant/0"], ["bee/1", "ant/0"]],
            r"1 file\(s\) are listed twice, such as 'ant/0.png'; use the lists of one stream",
        ),
    ],
)
def test_files_that_do_not_fit(folder, tasks, message):
    with pytest.raises(ValueError, match=message):
        ContinualDataModule(opened(folder), BlurryFileLists(write_lists(folder, tasks))).setup()


@pytest.mark.parametrize("klasses", [("ant", "ant"), ("ant", "ant", "bee")])
def test_classes_that_contradict_the_labels(klasses):
    names = ["a/0", "b/0", "b/1"]
    entries = [[("train/b/1", klasses[0]), ("train/a/0", klasses[1]), *[("train/b/0", k) for k in klasses[2:]]]]
    with pytest.raises(ValueError, match="the listed class 'ant' and the source's label 0 do not belong together"):
        listed_positions(entries, names, torch.tensor([0, 1, 1]))
    entries = [[("train/b/1", "bee"), ("train/b/0", "ant")]]
    with pytest.raises(ValueError, match="the listed class 'ant' and the source's label 1 do not belong together"):
        listed_positions(entries, names, torch.tensor([0, 1, 1]))


def test_missing_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*task0.json'; expected the list of task 0"):
        list_paths(str(tmp_path / "x_task{task}.json"))
    with pytest.raises(FileNotFoundError, match=r"the lists \['.*a.json'\] do not exist"):
        list_paths([tmp_path / "a.json"])
    with pytest.raises(ValueError, match=r"`lists` is '.*a.json'; give one path per task, or a pattern with \{task\}"):
        list_paths(str(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="`lists` is empty"):
        list_paths([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON file"),
        ("{}", "holds dict; expected a list of objects"),
        ("[]", "holds no entry; expected a list of objects"),
        ('[{"klass": "a", "file_name": "a/1"}, {"klass": "a"}]', r"entry 1 of .* is \{'klass': 'a'\}; expected"),
        ('[{"klass": 3, "file_name": "a/1"}]', "entry 0 of"),
    ],
)
def test_files_of_another_kind(tmp_path, text, message):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json_list(tmp_path / "list.json")
