from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

from lightning_cl.datamodules import BlurryFileLists, ContinualDataModule, TinyImageNet

WNIDS = ("n02124075", "n01443537", "n03126707", "n02012849")  # as in the archive, not sorted
WORDS = {
    "n01443537": "goldfish, Carassius auratus",
    "n02012849": "crane",
    "n02124075": "Egyptian cat",
    "n03126707": "crane, hoist",
    "n99999999": "a class that only the large data set has",
}
NAMES = ("goldfish", "crane", "Egyptian cat", "crane, hoist")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (folder / "words.txt").write_text("".join(f"{wnid}\t{text}\n" for wnid, text in WORDS.items()))
    annotations = []
    for number, wnid in enumerate(sorted(WNIDS)):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        for i in range(3):
            mode = "L" if i == 2 else "RGB"  # some of the images are grey
            image = Image.new(mode, (64, 64), color=40 * number if mode == "L" else (40 * number + i, 0, 0))
            image.save(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", quality=100, subsampling=0)
        boxes = "".join(f"{wnid}_{i}.JPEG\t0\t0\t63\t63\n" for i in range(3))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    for i in range(8):
        Image.new("RGB", (64, 64), color=(40 * (3 - i % 4), 0, 0)).save(folder / "val" / "images" / f"val_{i}.JPEG")
        annotations.append(f"val_{i}.JPEG\t{sorted(WNIDS)[3 - i % 4]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    (folder / "test" / "images").mkdir(parents=True)
    return tmp_path


def opened(*args, **options):
    source = TinyImageNet(*args, **options)
    source.setup()
    return source


@pytest.mark.parametrize("inside", [False, True], ids=["root", "folder"])
def test_images_labels_and_names(root, inside):
    source = opened(root / "tiny-imagenet-200" if inside else root)
    assert source.class_names == NAMES  # sorted wnids; the first synonym, unless two classes share it
    assert source.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert source.test_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for split, labels in (("train", source.train_labels), ("test", source.test_labels)):
        for i, expected in enumerate(labels.tolist()):
            image, label = source.item(split, i)
            assert (image.mode, image.size, label) == ("RGB", (64, 64), expected)
            assert abs(image.getpixel((5, 5))[0] - 40 * label) < 5


def test_both_orders_of_classes(root):
    ours, released = opened(root), opened(root, class_order="wnids")
    # The reference is torchvision's list of the folder with labels by the lines of wnids.txt, as the released code has.
    from torchvision.datasets import ImageFolder

    listed = ImageFolder(root / "tiny-imagenet-200" / "train").samples
    files = [path.split("train/")[1] for path, _ in listed]
    ids = [WNIDS.index(file.split("/")[0]) for file in files]
    assert [path.replace("/images/", "/") for path in files] == released.file_names("train") == ours.file_names("train")
    assert released.train_labels.tolist() == ids == [1, 1, 1, 3, 3, 3, 0, 0, 0, 2, 2, 2]
    assert released.class_names == ("Egyptian cat", "goldfish", "crane, hoist", "crane")
    names = [[source.class_names[label] for label in source.test_labels] for source in (ours, released)]
    assert names[0] == names[1]
    for i in range(12):
        assert released.item("train", i)[1] == ids[i]
    assert ours.digest() != released.digest()


def test_the_deviation_of_the_published_codes(root):
    source = opened(root, std=(0.2302, 0.2265, 0.2262))
    black = source.eval_transform()(torch.zeros(3, 64, 64, dtype=torch.uint8))[:, 0, 0]
    torch.testing.assert_close(black, -torch.tensor([0.4802, 0.4481, 0.3975]) / torch.tensor([0.2302, 0.2265, 0.2262]))
    assert opened(root, normalize=False, std=(0.2302, 0.2265, 0.2262)).std is None
    assert opened(root).std == TinyImageNet.std == (0.2770, 0.2691, 0.2821)


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="`class_order` is 'published'; expected 'sorted' or 'wnids'"):
        TinyImageNet("data", class_order="published")


def test_labels_are_read_without_decoding(root):
    for path in (root / "tiny-imagenet-200").rglob("*.JPEG"):
        path.write_bytes(b"no image")
    assert len(opened(root).train_labels) == 12


def test_transforms(root):
    source = opened(root)
    assert source.image_size == 64
    image = source.item("train", 0)[0]
    assert source.train_transform()(image).shape == source.eval_transform()(image).shape == (3, 64, 64)
    expected = (torch.zeros(3) - torch.tensor(source.mean)) / torch.tensor(source.std)
    torch.testing.assert_close(source.eval_transform()(image)[:, 9, 9], expected, atol=0.1, rtol=0)
    large = opened(root, image_size=224, normalize=False)
    for transform in (large.train_transform(), large.eval_transform()):
        pixels = transform(image)
        assert pixels.shape == (3, 224, 224)
        assert 0 <= pixels.min() <= pixels.max() <= 1


def test_published_lists_find_the_images(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "tinyimagenet_split5_n50_m10_rand1_task0.json"
    path.write_text(
        r'[{"file_name":"train\/n02124075\/n02124075_2.JPEG","klass":"n02124075","label":0},'
        r'{"file_name":"train\/n01443537\/n01443537_0.JPEG","klass":"n01443537","label":1}]'
    )
    stream = ContinualDataModule(TinyImageNet(root), BlurryFileLists([path]))
    with pytest.warns(UserWarning, match="leave out 10 of the source's 12 training images"):
        assert stream.table().sample.tolist() == [8, 0]


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_a_missing_part_is_named(root, name):
    (root / "tiny-imagenet-200" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"Tiny-ImageNet is not in .*\['{name}'\] missing; download http://.*zip"
    ):
        opened(root)


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_folder(tmp_path, exists):
    with pytest.raises(FileNotFoundError, match=r"Tiny-ImageNet is not in `root`=.*unpack it there"):
        opened(tmp_path if exists else tmp_path / "nothing")


def test_a_half_unpacked_archive(root):
    folder = root / "tiny-imagenet-200"
    (folder / "val" / "images" / "val_5.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"not complete: 1 listed .* in val/images, such as 'val_5.JPEG'"):
        opened(root)
    (folder / "train" / "n02124075" / "images" / "n02124075_1.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing in train, such as 'n02124075/images/n02124075_1.JPEG'"):
        opened(root)


def test_a_class_without_images(root):
    folder = root / "tiny-imagenet-200" / "train" / "n02124075"
    for path in (*folder.glob("images/*"), *folder.glob("*.txt")):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 listed .* missing in train, such as 'n02124075/images'"):
        opened(root)


@pytest.mark.parametrize("line", ["val_0.JPEG n01443537", "val_0.JPEG\tn00000000\t0"])
def test_a_wrong_annotation_is_named(root, line):
    path = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    path.write_text(f"val_1.JPEG\tn01443537\t0\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*_annotations.txt' is '.*'; expected a file name, a tab"):
        opened(root)


def test_a_class_without_words(root):
    (root / "tiny-imagenet-200" / "words.txt").write_text("n01443537\tgoldfish\n")
    with pytest.raises(ValueError, match=r"words.txt' has no words for the classes \['n02012849', 'n02124075'"):
        opened(root)


def test_construction_does_nothing():
    source = pickle.loads(pickle.dumps(TinyImageNet("nowhere")))
    with pytest.raises(AttributeError, match="known after `setup"):
        _ = source.train_labels
