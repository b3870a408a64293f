from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from lightning_cl.datamodules import ArraySource
from lightning_cl.datamodules.sources import arrays
from lightning_cl.datamodules.sources.array_layout import as_images


def pixels(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape, np.uint8)


def opened(*args, **kwargs):
    source = ArraySource(*args, **kwargs)
    source.setup()
    return source


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_are_channels_last_and_tensors_channels_first(channels):
    array = pixels(4, 5, 6, *([channels] if channels else []))
    images = as_images(array, "train")
    assert images.shape == (4, channels or 1, 5, 6)
    assert int(images[2, -1, 3, 1]) == int(array.reshape(4, 5, 6, -1)[2, 3, 1, -1])
    assert torch.equal(as_images(images, "train"), images)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\), but arrays are \(N, H, W\) or \(N, H, W, C\)"),
        (np.zeros((4, 3, 8, 8), np.uint8), "with C = 1 or 3"),
        (torch.zeros(4, 8, 8, 3), r"tensors are \(N, H, W\) or \(N, C, H, W\)"),
        (np.zeros((4, 5, 5), np.int64), "expected uint8 in 0..255, or floating point"),
    ],
)
def test_wrong_images(values, message):
    with pytest.raises(ValueError, match=message):
        as_images(values, "train images")


def test_arrays_given_in_python():
    x, y = pixels(6, 8, 8, 3), [0, 1, 2, 0, 1, 2]
    source = opened((x, y), (x[:2], y[:2]), class_names=["a", "b", "c"], mean=(0.5,), std=(0.5,), augment="crop")
    image, label = source.item("train", 4)
    assert np.array_equal(image.movedim(0, 2).numpy(), x[4])
    assert (label, type(label), source.num_classes, source.image_size) == (1, int, 3, 8)
    assert_close(source.eval_transform()(image), (image / 255 - 0.5) / 0.5)
    assert source.train_transform()(image).shape == (3, 8, 8)


def test_domains_given_in_python():
    x = pixels(4, 8, 8)
    source = opened((x, [0, 1, 0, 1]), (x[:2], [0, 1]), train_domains=[0, 0, 1, 1], test_domains=[1, 0])
    assert source.train_domains.tolist() == [0, 0, 1, 1]


def test_npz(tmp_path):
    x, y = pixels(4, 8, 8), np.array([1, 0, 1, 0], np.uint16)
    path = tmp_path / "data.npz"
    np.savez(path, train_x=x, train_y=y, test_x=x[:1], test_y=y[:1], class_names=np.array(["no", "yes"]),
             train_domains=np.array([0, 0, 1, 1]), test_domains=np.array([1]))  # fmt: skip
    source = opened(path)
    assert source.class_names == ("no", "yes")
    assert source.train_labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(source.item("test", 0)[0][0].numpy(), x[0])
    assert (source.domain_names, source.test_domains.tolist()) == (("0", "1"), [1])
    assert opened(str(path), class_names=["a", "b"]).class_names == ("a", "b")


def jpeg_file(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=95)
    return file.getvalue()


def jpeg_npz(path, images, labels):
    files = [jpeg_file(image) for image in images]
    data = np.frombuffer(b"".join(files), np.uint8)
    offsets = np.cumsum([0, *map(len, files)])
    parts = {f"{s}_{k}": v for s in ("train", "test") for k, v in (("jpeg", data), ("off", offsets), ("y", labels))}
    np.savez(path, **parts)


def test_jpeg_npz(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 256, 16, dtype=np.uint8)[:, None], (16, 16))
    colour = np.stack([smooth, smooth.T, 255 - smooth], axis=-1)
    jpeg_npz(tmp_path / "data.npz", [smooth, colour], np.array([0, 1]))  # one is stored grey
    source = opened(tmp_path / "data.npz", augment="crop")
    for index, original in enumerate((np.repeat(smooth[..., None], 3, -1), colour)):
        image, label = source.item("train", index)
        assert (image.mode, image.size, label) == ("RGB", (16, 16), index)
        assert np.abs(np.asarray(image).astype(int) - original).mean() < 8
    assert source.image_size == 16
    assert source.train_transform()(image).shape == (3, 16, 16)


def test_labels_are_read_without_decoding(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    broken = np.frombuffer(b"not a picture", np.uint8)
    good = np.frombuffer(jpeg_file(pixels(8, 8)), np.uint8)
    np.savez(path, train_jpeg=np.concatenate([good, broken]), train_off=[0, len(good), len(good) + len(broken)],
             train_y=[0, 1], test_jpeg=good, test_off=[0, len(good)], test_y=[0])  # fmt: skip
    source = opened(path)
    assert source.train_labels.tolist() == [0, 1]
    with pytest.raises(OSError, match="cannot identify"):
        source.item("train", 1)


def test_missing_keys_name_those_found(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, train_x=pixels(2, 4, 4), train_y=[0, 1], images=pixels(2, 4, 4))
    with pytest.raises(ValueError, match=r"'data\.npz' has no test split.*found 'images', 'train_x', 'train_y'"):
        opened(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a file; give the path of a \.npz file"):
        opened(tmp_path / "nothing.npz")


def test_objects_are_not_unpickled(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, train_x=pixels(2, 4, 4), train_y=np.array([0, 1], object), test_x=pixels(1, 4, 4), test_y=[0])
    with pytest.raises(ValueError, match="allow_pickle=False"):
        opened(path)


def test_wrong_arguments():
    x = pixels(4, 8, 8)
    with pytest.raises(ValueError, match="`train` has 4 images but 3 labels"):
        opened((x, [0, 1, 0]), (x, [0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"pass `test=\(images, labels\)`"):
        ArraySource((x, [0, 1, 0, 1]))
    with pytest.raises(ValueError, match="leave `test` out"):
        ArraySource("data.npz", (x, [0, 1, 0, 1]))
    with pytest.raises(ValueError, match="give both, or neither"):
        ArraySource("data.npz", mean=(0.5,))
    with pytest.raises(ValueError, match=r"`train` must be a pair \(images, labels\), but it is ndarray"):
        opened(x, (x, [0, 1, 0, 1]))


def test_constructing_opens_nothing_and_pickles_small(tmp_path):
    source = ArraySource(tmp_path / "not there yet.npz")
    assert len(pickle.dumps(source)) < 1000


@pytest.mark.parametrize(
    ("name", "classes", "train", "test", "shape"),
    [
        ("cifar100_sub", 100, 10000, 2000, (3, 32, 32)),
        ("caltech95_sub_jpeg", 95, 2362, 950, (3, 96, 96)),
        ("omniglot28", 1623, 24345, 8115, (1, 28, 28)),
    ],
)
def test_real_files(shared_data, monkeypatch, name, classes, train, test, shape):
    decode = arrays.JpegImages.__getitem__
    monkeypatch.setattr(arrays.JpegImages, "__getitem__", None)  # red if labels needed a picture
    source = opened(shared_data / f"{name}.npz", augment="crop")
    monkeypatch.setattr(arrays.JpegImages, "__getitem__", decode)
    assert (source.num_classes, len(source.train_labels), len(source.test_labels)) == (classes, train, test)
    for split in ("train", "test"):
        image, label = source.item(split, 17)
        assert label in range(classes)
        assert source.train_transform()(image).shape == source.eval_transform()(image).shape == shape
    copy = pickle.loads(pickle.dumps(source))
    assert copy.digest() == source.digest()
