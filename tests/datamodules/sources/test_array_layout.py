from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
from lightning_cl.datamodules.sources.array_layout import as_images

LABELS = [0, 1, 0, 1]


def opened(train, test=None, **options):
    source = ArraySource((train, LABELS), (train if test is None else test, LABELS), **options)
    source.setup()
    return source


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_named_layout_takes_any_number_of_channels(channels, kind, layout):
    pixels = np.random.RandomState(0).randint(0, 256, (4, channels, 5, 6), np.uint8)  # N, C, H, W
    given = pixels.transpose(0, 2, 3, 1) if layout == "NHWC" else pixels
    source = opened(kind(given), layout=layout)
    assert np.array_equal(source.item("train", 2)[0].numpy(), pixels[2])
    image = source.eval_transform()(source.item("train", 2)[0])
    assert_close(image, torch.from_numpy(pixels[2]) / 255)


def test_many_channels_are_resized_augmented_and_normalised():
    pixels = np.full((4, 13, 8, 8), 51, np.uint8)
    source = opened(pixels, layout="NCHW", image_size=16, augment="flip", mean=(0.1,) * 13, std=(0.5,) * 13)
    assert_close(source.train_transform()(source.item("train", 0)[0]), torch.full((13, 16, 16), 0.2))


def test_uint16_is_scaled_to_the_unit_interval():
    levels = np.array([0, 257 * 51, 65535], np.uint16).repeat(3).reshape(1, 3, 3).repeat(4, 0)
    source = opened(levels, image_size=6)
    image = source.eval_transform()(source.item("train", 0)[0])
    assert image.shape == (1, 6, 6)
    assert_close(source.item("train", 0)[0], torch.tensor([0.0, 0.2, 1.0]).repeat_interleave(3).reshape(1, 3, 3))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint16, np.uint8])
@pytest.mark.parametrize(("layout", "shape"), [("ND", (4, 7)), ("NTD", (4, 9, 7))])
def test_tables_and_series_stay_what_they_are(layout, shape, dtype):
    rows = (np.random.RandomState(0).rand(*shape) * 100).astype(dtype)
    plain = opened(rows, layout=layout)
    for transform in (plain.train_transform(), plain.eval_transform()):
        row = transform(plain.item("train", 3)[0])
        assert row.dtype == torch.float32
        assert_close(row.double().numpy(), rows[3].astype(np.float64), atol=1e-4, rtol=1e-6)
    mean, std = tuple(range(7)), tuple(range(1, 8))
    normal = opened(rows, layout=layout, mean=mean, std=std)
    expected = (rows[3].astype(np.float64) - np.array(mean)) / np.array(std)
    assert_close(normal.eval_transform()(normal.item("train", 3)[0]).double().numpy(), expected, atol=1e-4, rtol=1e-5)


def test_a_stream_of_tables():
    stream = ContinualDataModule(opened(np.eye(4), layout="ND"), ClassIncremental(num_tasks=2), batch_size=2)
    stream.prepare_data()
    stream.setup("fit")
    rows, labels = next(iter(stream.train_dataloader()))
    assert (rows.shape, rows.dtype, labels.shape) == ((2, 4), torch.float32, (2,))


@pytest.mark.parametrize(
    ("shape", "layout"), [((4, 50, 3), "NTD"), ((4, 3, 50), "NTD"), ((4, 128, 9), "NTD"), ((4, 8, 4), "NHW")]
)
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros], ids=["array", "tensor"])
def test_series_are_not_taken_for_grey_pictures(kind, shape, layout):
    with pytest.raises(ValueError, match=r'looks like series \(N, T, D\).*`layout="NTD"`, "NHW"'):
        opened(kind(shape))
    opened(kind(shape), layout=layout)


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 2, 2), (4, 64, 16), (4, 128, 16), (4, 5, 6)])
def test_grey_pictures_are(shape):
    assert as_images(np.zeros(shape, np.uint8), "images").shape == (4, 1, *shape[1:])


@pytest.mark.parametrize(
    ("high", "divisor"), [(255.0, "255"), (200.0, "255"), (65535.0, "65535"), (4095.0, "65535"), (1e6, r"1e\+06")]
)
@pytest.mark.parametrize("layout", [None, "NCHW"])
def test_floating_point_pixels_must_be_in_the_unit_interval(high, divisor, layout):
    pixels = torch.linspace(0, high, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)
    with pytest.raises(
        ValueError, match=rf"`train images` is torch.float32 with values up to .*Divide it by {divisor}"
    ):
        opened(pixels, layout=layout)
    good = torch.rand(4, 3, 8, 8)
    with pytest.raises(ValueError, match="`test images` is"):
        opened(good, pixels, layout=layout)
    for fine in (good, good * 1.1, torch.randn(4, 3, 8, 8) * 100):  # overshoot of resizing; standardised already
        opened(fine, layout=layout)


def test_a_bright_picture_among_some_hundred_dark_ones_is_seen():
    pixels = torch.zeros(300, 1, 2, 2)
    pixels[-1] = 255
    with pytest.raises(ValueError, match="values up to 255"):
        as_images(pixels, "images")


def test_measured_channels_may_have_any_range():
    assert as_images(np.full((4, 13, 8, 8), 9000.0), "images", "NCHW").shape == (4, 13, 8, 8)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), {"layout": "NWH"}, "`layout` is 'NWH'; expected one of 'NHW', 'NHWC', 'NCHW'"),
        (np.zeros((4, 8), np.uint8), {"layout": "NHW"}, r"shape \(4, 8\), which are 2 dimensions, but `layout='NHW'`"),
        (np.zeros((4, 8, 8), np.uint8), {"layout": "ND"}, "3 dimensions, but `layout='ND'` names 2"),
        (np.zeros((4, 8)), {"layout": "ND", "image_size": 32}, "so that `image_size` has no meaning; leave it out"),
        (np.zeros((4, 8)), {"layout": "ND", "augment": "flip"}, "so that `augment` has no meaning"),
        (np.zeros((4, 8)), {"layout": "ND", "rgb": True}, "so that `rgb` has no meaning"),
        (np.zeros((4, 8), complex), {"layout": "ND"}, "torch.complex128; expected real numbers"),
        (np.zeros((4, 8, 8, 4), np.uint8), {}, r"with C = 1 or 3\. Name what the dimensions are .*layout='NCHW'"),
        (torch.zeros(4, 8, 8, 4), {}, r"with C = 1 or 3\. Name what the dimensions are .*layout='NHWC'"),
        (np.zeros((4, 8)), {}, '"ND" for a table'),
    ],
)
def test_wrong_layouts(values, options, message):
    with pytest.raises(ValueError, match=message):
        opened(values, **options)
