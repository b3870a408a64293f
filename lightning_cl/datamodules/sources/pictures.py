"""Pictures from files, as a viewer shows them; or with all of their channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

_ORIENTATION = 0x0112
_MAY_BE_TURNED = frozenset(("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"))
Picture = TypeVar("Picture")


def reading(name: str, read: Callable[[], Picture]) -> Picture:
    """Read a picture, which is named in the error if it cannot be read.

    Raises:
        OSError: In place of whatever a decoder raises.
    """
    try:
        return read()
    except (MemoryError, ImportError, FileNotFoundError):  # the last names the file itself
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if type(error).__name__ == "DecompressionBombError":
            raise OSError(
                f"the picture {name!r} has more pixels than Pillow opens ({error}); make it smaller, or raise "
                "`PIL.Image.MAX_IMAGE_PIXELS`."
            ) from error
        raise OSError(
            f"the picture {name!r} cannot be read ({error}); replace the file or remove it (`ImageFolder` leaves such "
            'files out with `on_error="skip"`).'
        ) from error


def read_picture(file: Any, name: str, channels: int | None = None) -> Any:
    """A picture as RGB, or as a tensor with all of its channels.

    Args:
        file: Path, or an open binary file.
        name: Of the picture, for errors.
        channels: Number of channels; ``None``: an RGB PIL image, see :func:`as_shown`.

    Raises:
        OSError: If the picture cannot be read; it is named.
    """
    return reading(name, lambda: _read(file, name, channels))


def _read(file: Any, name: str, channels: int | None) -> Any:
    from PIL import Image

    if channels is not None and str(file).lower().endswith((".tif", ".tiff")):
        return _read_tiff(file, channels)
    with Image.open(file) as image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            size = f"{image.width} x {image.height}"
            warnings.warn(f"the picture {name!r} has {size} pixels.", UserWarning, stacklevel=2)
        return as_shown(image) if channels is None else _with_channels(image, channels)


def as_shown(image: Any) -> Any:
    """RGB PIL image as a viewer shows it.

    It is turned upright as its EXIF data say; 16-bit levels are scaled to 8 bits, floating point levels in [0, 1] to
    0..255 (those in 0..255 are taken as they are); what lies under transparent pixels is white.

    Raises:
        ValueError: If levels are in neither range.
    """
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.convert("RGB")

    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey_levels(image)).convert("RGB")
    if "transparency" in image.info or image.getbands()[-1] in ("A", "a"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Any) -> Any:
    """The image turned and mirrored as its EXIF data say, if it has any; no copy otherwise."""
    image.load()  # some formats have their EXIF data behind the pixels
    if _MAY_BE_TURNED.isdisjoint(image.info):
        return image

    from PIL.Image import Transpose

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture with damaged EXIF data is a good picture
        try:
            orientation = image.getexif().get(_ORIENTATION, 1)
        except Exception:
            orientation = 1
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _grey_levels(image: Any) -> np.ndarray:
    """``(H, W)`` uint8 of an image with 16 or 32 bits a pixel."""
    levels = np.asarray(image)
    if not levels.size:
        return levels.astype(np.uint8)
    low, high = levels.min(), levels.max()
    if image.mode == "F" and low >= 0 and high <= 255:
        return (levels * (255 if high <= 1 else 1)).round().astype(np.uint8)
    is_16_bit = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")  # older Pillow opens these as 32-bit
    if is_16_bit and image.mode != "F":
        return ((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.mode != "F" and low >= 0 and high <= 255:
        return levels.astype(np.uint8)
    raise ValueError(
        f"its levels are 32-bit numbers from {low} to {high}, which have no known white; save 8 or 16 bits"
    )


def _with_channels(image: Any, channels: int) -> Tensor:
    """``(channels, H, W)`` uint8, or float32 in [0, 1] of 16-bit levels."""
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise ValueError(f"a {image.format} file has at most 4 channels, but `channels` is {channels}; use TIFF")
    image = _upright(image)
    if channels == 1 and image.mode.startswith("I;16"):
        return _scaled(np.asarray(image)[None])
    image = image.convert(modes[channels]) if channels in (2, 4) else as_shown(image).convert(modes[channels])
    return _scaled(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))


def _read_tiff(file: Any, channels: int) -> Tensor:
    """``(channels, H, W)`` of a TIFF file: uint8, or float32."""
    try:
        import tifffile
    except ImportError as error:
        raise ImportError("TIFF files with several channels are read with tifffile; `pip install tifffile`.") from error
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        levels, axes = series.asarray(), series.axes
    if levels.ndim == 2:
        levels, axes = levels[None], "C" + axes
    others = [place for place, axis in enumerate(axes) if axis not in "YX"]
    if levels.ndim != 3 or len(others) != 1 or levels.shape[others[0]] != channels:
        raise ValueError(f"its shape is {levels.shape} ({axes}), but `channels` is {channels}")
    return _scaled(np.moveaxis(levels, others[0], 0))


def _scaled(levels: np.ndarray) -> Tensor:
    """uint8 as it is, uint16 as float32 in [0, 1], floating point as float32."""
    if levels.dtype == np.uint8:
        return torch.from_numpy(levels.copy())
    if levels.dtype == np.uint16:
        return torch.from_numpy(levels.astype(np.float32) / 65535)
    if levels.dtype.kind == "f":
        return torch.from_numpy(levels.astype(np.float32))
    raise ValueError(f"its levels are {levels.dtype}; save them as uint8, uint16 or floating point")


def is_readable(file: Any, channels: int | None = None) -> bool:
    """Whether a picture can be decoded to its last row; JPEG files at low resolution, which is faster."""
    from PIL import Image

    try:
        if channels is not None:
            read_picture(file, "", channels)
            return True
        with Image.open(file) as image:
            image.draft(None, (1, 1))
            as_shown(image)
    except ImportError:
        raise
    except Exception:
        return False
    return True
