"""CUB-200 and miniImageNet from small folders in the layout of their archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lightning_cl.datamodules import CUB200, ContinualDataModule, FewShot, MiniImageNet
from lightning_cl.datamodules.sources.mini_imagenet import class_name

SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")


def write_image(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (grey, grey, grey)).save(path)


def make_cub(root: Path) -> Path:
    folder = root / "CUB_200_2011"
    rows = [(name, i, i < 3) for name in reversed(SPECIES) for i in range(5)]  # not in the order of ids
    for name, i, _ in rows:
        write_image(folder / "images" / name / f"{name[4:]}_{i:04}.jpg", grey=10 * int(name[:3]) + i)
    number = {name: at for at, name in enumerate(SPECIES, 1)}
    tables = {
        "images.txt": [f"{n} {s}/{s[4:]}_{i:04}.jpg" for n, (s, i, _) in enumerate(rows, 1)],
        "image_class_labels.txt": [f"{n} {number[s]}" for n, (s, _, _) in enumerate(rows, 1)],
        "train_test_split.txt": [f"{n} {int(train)}" for n, (_, _, train) in enumerate(rows, 1)],
        "classes.txt": [f"{number[s]} {s}" for s in SPECIES],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return root


WNIDS = ("n02110063", "n01532829", "n99999999")


def make_mini(root: Path) -> Path:
    folder = root / "miniimagenet"
    (folder / "split").mkdir(parents=True)
    for split, each in (("train", 3), ("test", 2)):
        names = [(f"{w}{split}{i}.jpg", w) for i in range(each) for w in WNIDS]
        for name, _ in names:
            write_image(folder / "images" / name)
        lines = ["filename,label", *[f"{name},{wnid}" for name, wnid in names]]
        (folder / "split" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def test_cub_has_the_official_split_ids_by_folder_and_clean_names(tmp_path):
    source = CUB200(make_cub(tmp_path), image_size=16)
    source.setup()
    assert source.class_names == ("Black footed Albatross", "Laysan Albatross", "Red winged Blackbird")
    assert source.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    image, label = source.item("test", 5)
    assert label == 2
    assert abs(image.getpixel((0, 0))[0] - 104) <= 2  # the fifth image of folder 010


def test_published_lists_find_cub_images(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    base = [f"CUB_200_2011/images/{SPECIES[0]}/{SPECIES[0][4:]}_{i:04}.jpg" for i in range(3)]
    (lists / "session_1.txt").write_text("\n".join(base))
    for number, name in enumerate(SPECIES[1:], 2):
        (lists / f"session_{number}.txt").write_text(f"CUB_200_2011/images/{name}/{name[4:]}_0001.jpg\n")
    stream = ContinualDataModule(CUB200(make_cub(tmp_path)), FewShot(1, 1, 1, index_lists=lists))
    assert [index.tolist() for index in stream.layout.train_index] == [[0, 1, 2], [4], [7]]
    assert "published index lists" in stream.scenario.remarks[0]


def test_mini_imagenet_ids_follow_the_first_appearance(tmp_path):
    source = MiniImageNet(make_mini(tmp_path))
    source.setup()
    assert source.class_names == ("malamute", "house finch", "n99999999")
    assert source.train_labels.tolist() == [0, 1, 2] * 3
    assert source.file_names("train")[1] == "n01532829/n01532829train0.jpg"
    assert source.item("test", 4)[1] == 1


def test_class_names_are_first_lemmas():
    assert class_name("n02110063") == "malamute"


@pytest.mark.parametrize(
    ("make", "source", "part", "message"),
    [
        (make_cub, CUB200, "CUB_200_2011/classes.txt", r"\['classes.txt'\] missing; download"),
        (make_mini, MiniImageNet, "miniimagenet/split/test.csv", r"\['split/test.csv'\] missing"),
        (make_mini, MiniImageNet, "miniimagenet/images/n01532829test1.jpg", "1 listed images are not in"),
    ],
)
def test_a_half_unpacked_folder(tmp_path, make, source, part, message):
    (make(tmp_path) / part).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        source(tmp_path).setup()


def test_tables_that_do_not_fit(tmp_path):
    folder = make_cub(tmp_path) / "CUB_200_2011"
    with (folder / "images.txt").open("a") as file:
        file.write("99 a/b.jpg\n")
    with pytest.raises(ValueError, match="list 16 images, 15 labels and 15 entries"):
        CUB200(tmp_path).setup()
    (folder / "images.txt").write_text("one a/b.jpg\n")
    with pytest.raises(ValueError, match=r"line 1 of .* expected a number, a space and a text"):
        CUB200(tmp_path).setup()


def test_a_split_with_unknown_classes_or_columns(tmp_path):
    split = make_mini(tmp_path) / "miniimagenet" / "split" / "test.csv"
    split.write_text("filename,label\nx.jpg,n00000001\n")
    with pytest.raises(ValueError, match=r"test\.csv has the classes \['n00000001'\]"):
        MiniImageNet(tmp_path).setup()
    split.write_text("file,label\n")
    with pytest.raises(ValueError, match="should have the columns `filename,label`"):
        MiniImageNet(tmp_path).setup()
