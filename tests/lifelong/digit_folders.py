"""Folders of digits as pictures, and a model that has learned two of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images * (255 / 16)).round().astype(np.uint8), data.target


def write_digits(folder: Path, classes: tuple[int, ...], per_class: int | None = 10, start: int = 0) -> Path:
    """``folder/<name>/<number>.png``."""
    images, labels = digits()
    for digit in classes:
        below = folder / NAMES[digit]
        below.mkdir(parents=True, exist_ok=True)
        rows = np.flatnonzero(labels == digit)[start:]
        for row in rows if per_class is None else rows[:per_class]:
            Image.fromarray(images[row]).save(below / f"{row:04d}.png")
    return folder
