from __future__ import annotations

import pytest

from lightning_cl.datamodules.sources.file_lists import below, check_listed, names_of_labels, read_file_list


def test_text_lines(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("real/a cat/1.jpg 3\n\n  sketch/dog/2.jpg   11\n")
    assert read_file_list(path) == (["real/a cat/1.jpg", "sketch/dog/2.jpg"], [3, 11])


@pytest.mark.parametrize("line", ["a/1.jpg", "a/1.jpg x", "a/1.jpg -1", "7"])
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "train.txt"
    path.write_text(f"a/0.jpg 0\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*train.txt' is '.*'; expected a path, a space and a class id"):
        read_file_list(path)


def test_yaml(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("data:\n- data/imagenet-r/n02/a_1.jpg\n- data/imagenet-r/n01/b_2.jpg\ntargets:\n- 0\n- 1\n")
    assert read_file_list(path) == (["data/imagenet-r/n02/a_1.jpg", "data/imagenet-r/n01/b_2.jpg"], [0, 1])


@pytest.mark.parametrize("text", ["- a\n- b\n", "data: [a]\ntargets: [0, 1]\n", "data: [a]\n", "data: a\ntargets: 0\n"])
def test_yaml_of_another_kind(tmp_path, text):
    path = tmp_path / "train.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"should have the keys `data` .* and `targets`"):
        read_file_list(path)


def test_a_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file list .*nothing.txt"):
        read_file_list(tmp_path / "nothing.txt")


def test_paths_start_below_the_folder_whatever_stands_before():
    paths = ["data/images/a/1.jpg", "images/b/2.jpg", "c/3.jpg", "D:\\images\\d\\4.jpg"]
    assert below(paths, "images") == ["a/1.jpg", "b/2.jpg", "c/3.jpg", "d/4.jpg"]


def test_labels_have_the_names_of_their_folders():
    assert names_of_labels([(["b/1.jpg", "a/1.jpg"], [0, 1]), (["x/c/1.jpg", "b/2.jpg"], [2, 0])]) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("paths", "labels", "words"),
    [
        (["a/1.jpg", "b/1.jpg"], [0, 0], r"class id 0 stands for 'a' and for 'b' \(b/1.jpg\)"),
        (["a/1.jpg", "b/1.jpg"], [0, 2], r"2 classes but none with the ids \[1\]"),
    ],
)
def test_labels_that_contradict_each_other(paths, labels, words):
    with pytest.raises(ValueError, match=words):
        names_of_labels([(paths, labels)])


def test_what_is_listed_must_be_there_and_in_one_split(tmp_path):
    (tmp_path / "a").mkdir()
    check_listed(tmp_path, ["a/1.jpg"], ["a/2.jpg"])
    with pytest.raises(FileNotFoundError, match=r"1 of 2 folders .* not in .*, such as 'b'; unpack all"):
        check_listed(tmp_path, ["a/1.jpg"], ["b/2.jpg"])
    with pytest.raises(ValueError, match=r"1 file\(s\) are listed for training and for testing, such as 'a/1.jpg'"):
        check_listed(tmp_path, ["a/1.jpg", "a/2.jpg"], ["a/1.jpg"])
