"""Pictures of every kind against the plain RGB picture that a viewer would show."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, ImageFolder
from lightning_cl.datamodules.sources.pictures import read_picture

GREY = (np.arange(12 * 8).reshape(12, 8) * 2).astype(np.uint8)  # 12 rows, 8 columns
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
HALF = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8)[None].repeat(12, 0)  # opaque on the left


def on_white(colour):
    return np.where(HALF[..., None] == 255, colour, 255)


def palette(mode):
    return Image.fromarray(COLOUR).convert("P") if mode == "P" else Image.fromarray(COLOUR).convert(mode)


def saved(tmp_path, image, suffix, **options):
    path = tmp_path / f"picture{suffix}"
    image.save(path, **options)
    return path


def shown(path):
    image = read_picture(path, str(path))
    assert image.mode == "RGB"
    return np.asarray(image)


KINDS = {
    "16-bit png": (Image.fromarray(GREY.astype(np.uint16) * 257), ".png", np.stack([GREY] * 3, -1)),
    "16-bit tiff": (Image.fromarray(GREY.astype(np.uint16) * 257), ".tiff", np.stack([GREY] * 3, -1)),
    "32-bit tiff": (Image.fromarray(GREY.astype(np.int32)), ".tiff", np.stack([GREY] * 3, -1)),
    "float tiff in 0..1": (Image.fromarray(GREY.astype(np.float32) / 255), ".tiff", np.stack([GREY] * 3, -1)),
    "float tiff in 0..255": (Image.fromarray(GREY.astype(np.float32)), ".tif", np.stack([GREY] * 3, -1)),
    "rgb": (Image.fromarray(COLOUR), ".png", COLOUR),
    "grey": (Image.fromarray(GREY), ".bmp", np.stack([GREY] * 3, -1)),
    "rgba": (Image.fromarray(np.dstack([COLOUR, HALF])), ".png", on_white(COLOUR)),
    "grey with alpha": (Image.fromarray(np.dstack([GREY, HALF]), "LA"), ".png", on_white(np.stack([GREY] * 3, -1))),
    "webp with alpha": (Image.fromarray(np.dstack([COLOUR, HALF])), ".webp", on_white(COLOUR)),
    "opaque rgba": (Image.fromarray(np.dstack([COLOUR, HALF * 0 + 255])), ".png", COLOUR),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_read_as_a_viewer_shows_them(tmp_path, kind):
    image, suffix, expected = KINDS[kind]
    found = shown(saved(tmp_path, image, suffix, **({"lossless": True} if suffix == ".webp" else {})))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("colour", [(10, 20, 30), (0, 0, 0)])
def test_a_transparent_colour_is_white(tmp_path, colour):
    pixels = COLOUR.copy()
    pixels[:3] = colour
    found = shown(saved(tmp_path, Image.fromarray(pixels), ".png", transparency=colour))
    assert (found[:3] == 255).all()
    assert np.array_equal(found[3:], COLOUR[3:])


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.fromarray(HALF // 255, "P")  # entry 1 on the left, 0 on the right
    image.putpalette([1, 2, 3, 4, 5, 6])
    found = shown(saved(tmp_path, image, ".png", transparency=0))
    assert (found[:, 4:] == 255).all()
    assert (found[:, :4] == [4, 5, 6]).all()


# What each EXIF orientation says has been done to the picture, which reading undoes: the reference is NumPy.
UNDONE = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UNDONE)
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    found = shown(saved(tmp_path, Image.fromarray(COLOUR), suffix, exif=exif, **options))
    assert np.array_equal(found, UNDONE[orientation](COLOUR))


@pytest.mark.parametrize("exif", [b"Exif\0\0nothing of the kind", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_matter(tmp_path, exif):
    path = saved(tmp_path, Image.fromarray(COLOUR), ".jpg", exif=exif)
    assert shown(path).shape == COLOUR.shape


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.0, 300.0], [np.nan, 0.5]])
def test_levels_without_a_known_white_are_refused(tmp_path, values):
    path = saved(tmp_path, Image.fromarray(np.array([values], np.float32)), ".tiff")
    with pytest.raises(OSError, match=r"picture\.tiff' cannot be read \(its levels are 32-bit numbers from"):
        shown(path)


def folder_of(tmp_path, write, suffix):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            write(tmp_path / name / f"{i}{suffix}")
    return tmp_path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("first", [True, False], ids=["planes", "pixels"])
@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_tiff_files_keep_their_channels(tmp_path, dtype, first, channels):
    whole = {np.uint8: 1, np.uint16: 65535, np.float32: 1}[dtype]
    pixels = (np.random.RandomState(0).rand(channels, 12, 8) * (255 if dtype == np.uint8 else whole)).astype(dtype)
    given = pixels[0] if channels == 1 else pixels if first else pixels.transpose(1, 2, 0)
    options = {} if channels == 1 else {"photometric": "minisblack", "planarconfig": "separate" if first else "contig"}
    root = folder_of(tmp_path, lambda path: tifffile.imwrite(path, given, **options), ".tif")
    source = ImageFolder(root, test_fraction=0.3, channels=channels, image_size=16)
    source.setup()
    image, _ = source.item("train", 1)
    assert (image.shape, image.dtype) == ((channels, 12, 8), torch.uint8 if dtype == np.uint8 else torch.float32)
    np.testing.assert_allclose(image.numpy(), pixels / whole, rtol=1e-6)
    for transform in (source.train_transform(), source.eval_transform()):
        made = transform(image)
        assert (made.shape, made.dtype) == ((channels, 16, 16), torch.float32)
        assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(1, np.asarray(Image.fromarray(COLOUR).convert("L"))[..., None]), (3, COLOUR), (4, np.dstack([COLOUR, HALF]))],
)
def test_png_files_with_other_channels(tmp_path, channels, expected):
    image = Image.fromarray(np.dstack([COLOUR, HALF]) if channels == 4 else COLOUR)
    source = ImageFolder(folder_of(tmp_path, image.save, ".png"), test_fraction=0.3, channels=channels)
    source.setup()
    assert np.array_equal(source.item("train", 0)[0].movedim(0, 2).numpy(), expected)
    assert source.mean is None


def test_16_bit_png_files_keep_their_levels(tmp_path):
    levels = GREY.astype(np.uint16) * 200 + 7
    source = ImageFolder(folder_of(tmp_path, Image.fromarray(levels).save, ".png"), test_fraction=0.3, channels=1)
    source.setup()
    np.testing.assert_allclose(source.item("train", 0)[0][0].numpy(), levels / 65535, rtol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "channels", "message"),
    [
        (".png", 13, "a PNG file has at most 4 channels, but `channels` is 13"),
        (".tif", 13, r"its shape is \(12, 8, 3\) \(YXS\), but `channels` is 13"),
    ],
)
def test_files_with_other_channels_than_the_source_says(tmp_path, suffix, channels, message):
    source = ImageFolder(
        folder_of(tmp_path, Image.fromarray(COLOUR).save, suffix), test_fraction=0.3, channels=channels
    )
    source.setup()
    with pytest.raises(OSError, match=message):
        source.item("train", 0)


def broken(kind, path):
    """Spoil a JPEG file."""
    good = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")
    else:
        other = io.BytesIO()
        Image.new("RGB", (16, 16)).save(other, format="PNG")
        path.write_bytes(other.getvalue()[:-30])


def noisy(path):
    Image.fromarray(np.random.RandomState(1).randint(0, 256, (40, 40, 3), np.uint8)).save(path, quality=95)


BROKEN = ["truncated", "empty", "text", "png without an end"]


@pytest.mark.parametrize("kind", BROKEN)
def test_the_error_names_the_file(tmp_path, kind):
    root = folder_of(tmp_path, noisy, ".jpg")
    broken(kind, root / "b" / "1.jpg")
    source = ImageFolder(root, test_fraction=0.3)
    source.setup()
    where = [(s, i) for s in ("train", "test") for i, path in enumerate(source.file_names(s)) if path == "b/1.jpg"]
    with pytest.raises(
        OSError, match=r'b/1\.jpg\' cannot be read \(.*\); replace the file or remove it.*on_error="skip"'
    ):
        source.item(*where[0])


def test_the_error_of_a_worker_names_the_file(tmp_path):
    root = folder_of(tmp_path, noisy, ".jpg")
    for i in range(3):
        broken("truncated", root / "a" / f"{i}.jpg")
    stream = ContinualDataModule(ImageFolder(root, test_fraction=0.3), ClassIncremental(1), batch_size=8, num_workers=1)
    stream.setup("fit")
    with pytest.raises(OSError, match=r"a/\d\.jpg' cannot be read"):
        next(iter(stream.train_dataloader()))


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_left_out_where_asked(tmp_path, kind):
    root = folder_of(tmp_path, noisy, ".jpg")
    broken(kind, root / "b" / "1.jpg")
    source = ImageFolder(root, test_fraction=0.4, on_error="skip")
    with pytest.warns(UserWarning, match=r"1 of 6 pictures in .* cannot be read and are left out: 'b/1\.jpg'\."):
        source.setup()
    assert sorted([*source.file_names("train"), *source.file_names("test")]) == [
        "a/0.jpg", "a/1.jpg", "a/2.jpg", "b/0.jpg", "b/2.jpg",
    ]  # fmt: skip
    for split, labels in (("train", source.train_labels), ("test", source.test_labels)):
        for i, label in enumerate(labels.tolist()):
            assert source.item(split, i)[1] == label == "ab".index(source.file_names(split)[i][0])
    assert pickle.loads(pickle.dumps(source)).digest() == source.digest()


def test_split_folders_leave_broken_files_out(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        folder_of(tmp_path / split, noisy, ".jpg")
        broken("text", tmp_path / split / "a" / "0.jpg")
    source = ImageFolder(tmp_path, on_error="skip")
    with pytest.warns(UserWarning, match="1 of 6 pictures"):
        source.setup()
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == ([0, 0, 1, 1, 1], [0, 0, 1, 1, 1])


def test_wrong_choices():
    with pytest.raises(ValueError, match="`on_error` is 'ignore'; expected 'raise' or 'skip'"):
        ImageFolder("data", on_error="ignore")
    with pytest.raises(ValueError, match="`channels` is 0"):
        ImageFolder("data", channels=0)


def test_an_oversized_picture_is_named(tmp_path, monkeypatch):
    root = folder_of(tmp_path, noisy, ".jpg")
    source = ImageFolder(root, test_fraction=0.3)
    source.setup()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # the pictures have 1600
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.warns(UserWarning, match=r"a/\d\.jpg' has 40 x 40 pixels"),
    ):
        source.item("train", 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(OSError, match=r"a/\d\.jpg' has more pixels than Pillow opens .*raise `PIL\.Image\.MAX_IMAGE"):
        source.item("train", 0)


def test_a_broken_picture_in_an_array_is_named(tmp_path):
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, format="JPEG")
    data, cut = np.frombuffer(file.getvalue(), np.uint8), len(file.getvalue()) - 60
    facts = {"jpeg": np.concatenate([data, data[:cut]]), "off": [0, len(data), len(data) + cut], "y": [0, 1]}
    parts = {f"{split}_{key}": value for split in ("train", "test") for key, value in facts.items()}
    np.savez(tmp_path / "data.npz", **parts)
    source = ArraySource(tmp_path / "data.npz")
    source.setup()
    assert source.item("test", 0)[0].size == (8, 12)
    with pytest.raises(OSError, match=r"'data\.npz:test_jpeg\[1\]' cannot be read"):
        source.item("test", 1)
