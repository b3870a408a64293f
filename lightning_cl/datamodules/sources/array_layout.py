"""Name the dimensions of an array of images, features or series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

#: N samples, H rows, W columns, C channels, T steps, D features.
Layout = Literal["NHW", "NHWC", "NCHW", "ND", "NTD"]
TABLES = ("ND", "NTD")
_CHECKED = 256  # images of which the range of values is looked at


def check_layout(layout: str | None, image_size: int | None, augment: str, rgb: bool) -> None:
    """Check a layout, and that nothing is asked of tables that only images can do.

    Raises:
        ValueError: If the layout is unknown, or a table is to be resized, augmented or coloured.
    """
    if layout is not None and layout not in get_args(Layout):
        raise ValueError(f"`layout` is {layout!r}; expected one of {', '.join(map(repr, get_args(Layout)))} or None.")
    asked = {"image_size": image_size is not None, "augment": augment != "none", "rgb": rgb}
    names = [name for name, given in asked.items() if given]
    if layout in TABLES and names:
        raise ValueError(f"`layout={layout!r}` holds no images, so that `{names[0]}` has no meaning; leave it out.")


def as_images(values: Any, what: str, layout: Layout | None = None) -> Tensor:
    """Images as one ``(N, C, H, W)`` tensor that shares memory with ``values`` where possible.

    Args:
        values: NumPy array ``(N, H, W)`` or ``(N, H, W, C)``, or tensor ``(N, H, W)`` or ``(N, C, H, W)``; uint8,
            uint16, or floating point in [0, 1]; ``C`` is 1 or 3.
        what: Name of the values in an error message.
        layout: What the dimensions are, if they are others; of tables (``"ND"``, ``"NTD"``) the shape stays, and the
            numbers may be of any range.

    Raises:
        ValueError: If shape, dtype or range are others.
    """
    channels_last = not isinstance(values, Tensor)
    images = torch.from_numpy(np.asarray(values)) if channels_last else values
    if layout in TABLES:
        return _as_table(images, what, layout)
    if layout is None:
        images = _in_usual_layout(images, what, channels_last)
    else:
        _check_rank(images, what, layout)
        images = {"NHW": lambda: images[:, None], "NHWC": lambda: images.movedim(3, 1), "NCHW": lambda: images}[
            layout
        ]()
    if images.dtype not in (torch.uint8, torch.uint16) and not images.is_floating_point():
        raise ValueError(f"`{what}` is {images.dtype}; expected uint8 in 0..255, or floating point in [0, 1].")
    if images.is_floating_point() and images.shape[1] in (1, 3):
        _check_range(images, what)
    return images


def _in_usual_layout(images: Tensor, what: str, channels_last: bool) -> Tensor:
    shape = tuple(images.shape)
    if images.ndim == 3:
        _check_grey(shape, what)
        images = images[:, None]
    elif images.ndim == 4 and channels_last:
        images = images.movedim(3, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        usual = "arrays are (N, H, W) or (N, H, W, C)" if channels_last else "tensors are (N, H, W) or (N, C, H, W)"
        raise ValueError(
            f"`{what}` has shape {shape}, but {usual} with C = 1 or 3. Name what the dimensions are if they are "
            f'others, as `layout={"NCHW" if channels_last else "NHWC"!r}`, or "ND" for a table.'
        )
    return images


def _check_grey(shape: tuple[int, ...], what: str) -> None:
    """Grey pictures are neither a few pixels wide nor ten times as long as wide; series are."""
    short, long = sorted(shape[1:])
    if (short <= 4 and short != long) or long > 10 * short:
        raise ValueError(
            f"`{what}` has shape {shape}, which looks like series (N, T, D) or small colour pictures, not like grey "
            'pictures (N, H, W); say which with `layout="NTD"`, "NHW", or by a dimension for the channels.'
        )


def _check_rank(images: Tensor, what: str, layout: str) -> None:
    if images.ndim != len(layout):
        raise ValueError(
            f"`{what}` has shape {tuple(images.shape)}, which are {images.ndim} dimensions, but `layout={layout!r}` "
            f"names {len(layout)}."
        )


def _check_range(images: Tensor, what: str) -> None:
    """Look at some images, so that those of millions cost no time."""
    if images.numel() == 0:
        return
    some = images[:: max(len(images) // _CHECKED, 1)]
    low, high = float(some.amin()), float(some.amax())
    if low >= 0 and high > 2:  # a little above 1 comes from resizing; below 0 is what was standardised already
        raise ValueError(
            f"`{what}` is {images.dtype} with values up to {high:g}; expected floating point in [0, 1]. Divide it by "
            f"{255 if high <= 255 else 65535 if high <= 65535 else format(high, 'g')}, or give uint8."
        )


def _as_table(rows: Tensor, what: str, layout: str) -> Tensor:
    _check_rank(rows, what, layout)
    if rows.is_complex():
        raise ValueError(f"`{what}` is {rows.dtype}; expected real numbers.")
    return rows


class TableTransform:
    """Features as float32, normalised along the last dimension if there is a mean.

    Args:
        mean: Of each feature, or one number for all; ``None``: not normalised.
        std: As ``mean``.
    """

    draws = False

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self.mean = None if mean is None else torch.tensor(mean)
        self.std = None if std is None else torch.tensor(std)

    def __call__(self, row: Tensor) -> Tensor:
        """``(D,)`` or ``(T, D)``, as float32."""
        row = row.float()
        return row if self.mean is None or self.std is None else (row - self.mean) / self.std
