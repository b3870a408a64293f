"""What a model says of images: the probabilities of its classes, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_cl.datamodules.sources.image_files import SUFFIXES
from lightning_cl.lifelong.preprocessing import Preprocessing
from lightning_cl.namespace import LightningModule

#: A path, an address of nothing else; a picture of Pillow; or a tensor that the model takes.
Images = Any
#: A name for each image, and the images ``(B, C, H, W)``.
Batch = tuple[list[str], Tensor]


@dataclass
class Predictions:
    """Probabilities of a model's classes.

    Attributes:
        images: What each row is of: a path, or the position of the image.
        class_names: ``K`` names of the classes that the model may answer.
        probabilities: ``(N, K)`` float32, rows sum to 1.
    """

    images: list[str]
    class_names: list[str]
    probabilities: Tensor

    @property
    def labels(self) -> list[str]:
        """The most probable class of each image."""
        return [self.class_names[c] for c in self.probabilities.argmax(1).tolist()] if len(self.images) else []

    def top(self, count: int = 3) -> list[list[tuple[str, float]]]:
        """For each image its most probable classes, as pairs of name and probability."""
        values, columns = self.probabilities.topk(min(count, len(self.class_names)), dim=1)
        pairs = zip(values.tolist(), columns.tolist(), strict=True)
        return [[(self.class_names[c], p) for p, c in zip(*row, strict=True)] for row in pairs]

    def __len__(self) -> int:
        return len(self.images)


def image_paths(given: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Files, and the image files below folders, in order.

    Raises:
        ValueError: If there is no such file or folder, or a folder holds no images.
    """
    found = list[str]()
    for entry in given:
        path = Path(entry)
        if path.is_dir():
            below = sorted(str(f) for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
            if not below:
                raise ValueError(
                    f"there are no images below {path}; give files that end in {', '.join(sorted(SUFFIXES))}."
                )
            found += below
        elif path.is_file():
            found.append(str(path))
        else:
            raise ValueError(
                f"there is no image {str(path)!r}; give files, folders, or `-` for paths on standard input."
            )
    return found


def named_batches(images: Images, preprocessing: Preprocessing, batch_size: int) -> Iterator[Batch]:
    """Batches ``(B, C, H, W)`` of whatever was given, with a name for each image.

    Args:
        images: A path, a folder, a list of them or of pictures, or a ``(N, C, H, W)`` float tensor as the model takes.
        preprocessing: Of pictures and files.
        batch_size: Images at a time.

    Raises:
        ValueError: For a tensor of another shape, or images that are not there.
        OSError: For a file that cannot be read.
    """
    if isinstance(images, Tensor):
        _check_tensor(images, preprocessing)
        for start in range(0, len(images), batch_size):
            rows = images[start : start + batch_size]
            yield [str(start + i) for i in range(len(rows))], rows
        return
    transform = preprocessing.transform()
    items, names, read = _items(images, preprocessing)
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        yield names[start : start + batch_size], torch.stack([transform(read(item)) for item in part])


def _items(images: Images, preprocessing: Preprocessing) -> tuple[list[Any], list[str], Callable[[Any], Any]]:
    entries = [images] if isinstance(images, (str, os.PathLike)) or hasattr(images, "convert") else list(images)
    if all(isinstance(entry, (str, os.PathLike)) for entry in entries):
        paths = image_paths(entries)
        return paths, paths, preprocessing.read
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(preprocessing.channels, "RGB")
    strangers = [type(entry).__name__ for entry in entries if not hasattr(entry, "convert")]
    if strangers:
        raise ValueError(
            f"the images hold a {strangers[0]}; give paths, pictures of Pillow, or one tensor (N, "
            f"{preprocessing.channels}, {preprocessing.image_size}, {preprocessing.image_size}) as the model takes."
        )
    return entries, [str(i) for i in range(len(entries))], lambda picture: picture.convert(mode)


def _check_tensor(images: Tensor, preprocessing: Preprocessing) -> None:
    wanted = preprocessing.channels, preprocessing.image_size, preprocessing.image_size
    if images.ndim != 4 or tuple(images.shape[1:]) != wanted or not images.is_floating_point():
        raise ValueError(
            f"the images are {images.dtype} of shape {tuple(images.shape)}, but this model takes float (N, "
            f"{', '.join(map(str, wanted))}); give files or pictures, which are resized, or such a tensor."
        )


class Answer(torch.nn.Module):
    """Images to probabilities of the classes that a model may answer.

    Args:
        module: The model, with its methods.
        columns: Of its logits that may be answered.
    """

    columns: Tensor

    def __init__(self, module: LightningModule, columns: Sequence[int]) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("columns", torch.tensor(list(columns), dtype=torch.long))

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` images to ``(B, K)`` probabilities."""
        logits = self.module(images)
        probabilities: Tensor = logits.index_select(1, self.columns).float().softmax(1)
        return probabilities


@torch.no_grad()
def predict(answer: Answer, class_names: Sequence[str], batches: Iterable[Batch], device: torch.device) -> Predictions:
    """The answers for all batches."""
    names, rows = list[str](), list[Tensor]()
    answer = answer.to(device).eval()
    for found, batch in batches:
        names += found
        rows.append(answer(batch.to(device)).cpu())
    probabilities = torch.cat(rows) if rows else torch.empty(0, len(class_names))
    return Predictions(names, list(class_names), probabilities)
