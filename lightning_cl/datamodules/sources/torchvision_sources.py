"""Sources over torchvision's data sets; a member states facts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from lightning_cl.datamodules.sources.base import Split
from lightning_cl.datamodules.sources.images import Augment, ImageSource

#: Superclass of each class of CIFAR-100, and their names.
_CIFAR100_SUPERCLASSES = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0,
    11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19,
    18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip
_CIFAR100_NAMES = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things "
    "large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals non-insect_invertebrates "
    "people reptiles small_mammals trees vehicles_1 vehicles_2"
)


class TorchvisionSource(ImageSource):
    """Base of the sources over ``torchvision.datasets``; labels are read from ``.targets``, never by decoding.

    Args:
        root: Folder that holds the data set, or that it is downloaded to.
        image_size: Height and width in pixels that images are resized to; ``None``: as they are.
        normalize: Subtract the data set's mean and divide by its standard deviation. ``False`` leaves pixels in
            [0, 1], which the published prompt methods feed their ViT.
        augment: Training augmentation. ``"crop"``: at the original size a shift by up to an eighth and a flip,
            resized a random crop of 8 % to 100 % of the area and a flip; ``"flip"``; ``"none"``; ``None``: ``"crop"``
            for photographs, ``"none"`` for digits and letters, which are never mirrored.
        rgb: Repeat a grey channel three times, for backbones that expect colour.
        download: Download the data set in :meth:`prepare` if it is not in ``root``.

    Raises:
        FileNotFoundError: In :meth:`setup`, if the data set is not in ``root``; in :meth:`prepare`, if it cannot be
            downloaded.
    """

    dataset_name: ClassVar[str]
    """Name of the class in ``torchvision.datasets``; it is imported at the point of use."""
    superclass_of_class: ClassVar[Sequence[int] | None] = None
    """The number of each class's superclass; ``None``: there are none."""
    names_of_superclasses: ClassVar[Sequence[str] | None] = None

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        image_size: int | None = None,
        normalize: bool = True,
        augment: Augment | None = None,
        rgb: bool = False,
        download: bool = True,
    ) -> None:
        super().__init__(image_size, normalize, augment, rgb)
        self.root, self.download = Path(root), download

    def _dataset(self, download: bool, **options: Any) -> Any:
        import torchvision.datasets

        try:
            return getattr(torchvision.datasets, self.dataset_name)(self.root, download=download, **options)
        except (RuntimeError, OSError) as error:  # a corrupt archive; no network, no space
            if download:
                raise FileNotFoundError(
                    f"{self.dataset_name} is not in `root`={str(self.root)!r} and could not be downloaded to it "
                    f"({type(error).__name__}: {error}). Without a network, give the folder that torchvision's "
                    f"{self.dataset_name} was saved to on another machine."
                ) from error
            raise FileNotFoundError(
                f"{self.dataset_name} is not in `root`={str(self.root)!r} ({error}); call `prepare()` with "
                f"`download=True`, or give the folder that torchvision's {self.dataset_name} was saved to."
            ) from error

    def prepare(self) -> None:
        """Download both splits if ``download`` is set and they are missing."""
        if self.download:
            for train in (True, False):
                self._dataset(download=True, train=train)

    def _open(self) -> None:
        self._data = {"train": self._dataset(False, train=True), "test": self._dataset(False, train=False)}
        train, test = self._data["train"], self._data["test"]
        self._describe(
            train.targets,
            test.targets,
            train.classes,
            superclass_of_class=self.superclass_of_class,
            superclass_names=self.names_of_superclasses,
        )

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: a PIL image and an int."""
        return self._data[split][index]


class MNIST(TorchvisionSource):
    """Handwritten digits: 10 classes, 60,000 / 10,000 grey images of 28x28."""

    dataset_name = "MNIST"
    mean, std = (0.1307,), (0.3081,)
    native_size, default_augment, photographs = 28, "none", False


class FashionMNIST(TorchvisionSource):
    """Pictures of clothes: 10 classes, 60,000 / 10,000 grey images of 28x28 (arXiv:1708.07747)."""

    dataset_name = "FashionMNIST"
    mean, std = (0.2860,), (0.3530,)
    native_size = 28


class _CIFAR(TorchvisionSource):
    def file_names(self, split: Split) -> Sequence[str]:
        """``<class>/<number>.png``: the images of each class numbered from 1, as the tool cifar2png names them."""
        labels = self.train_labels if split == "train" else self.test_labels
        counts = [0] * self.num_classes
        names = []
        for label in labels.tolist():
            counts[label] += 1
            names.append(f"{self.class_names[label]}/{counts[label]:04d}.png")
        return names


class CIFAR10(_CIFAR):
    """Photographs: 10 classes, 50,000 / 10,000 colour images of 32x32 (Krizhevsky, 2009)."""

    dataset_name = "CIFAR10"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    native_size = 32


class CIFAR100(_CIFAR):
    """Photographs: 100 classes in 20 superclasses, 50,000 / 10,000 colour images of 32x32 (Krizhevsky, 2009)."""

    dataset_name = "CIFAR100"
    superclass_of_class, names_of_superclasses = _CIFAR100_SUPERCLASSES, tuple(_CIFAR100_NAMES.split())
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    native_size = 32


class Omniglot(TorchvisionSource):
    """Handwritten characters of 50 alphabets: 1,623 classes, each drawn by 20 people, 105x105, dark on white.

    There is no official split into train and test samples: drawers 1 to 15 are train, 16 to 20 are test
    (24,345 / 8,115 images). Classes are sorted by ``alphabet/character``.

    Args:
        root: Folder that holds ``omniglot-py``, or that it is downloaded to.
        part: ``"all"`` 1,623 classes, or the authors' ``"background"`` (964) or ``"evaluation"`` (659) classes.
        image_size: Height and width in pixels that images are resized to; ``None``: 28.
        normalize: Subtract the data set's mean and divide by its standard deviation.
        augment: ``"none"`` (default) or ``"crop"``: shifts by up to an eighth of the size. Never mirrored.
        rgb: Repeat the grey channel three times, for backbones that expect colour.
        download: Download the data set in :meth:`prepare` if it is not in ``root``.

    Raises:
        ValueError: If ``part`` is none of these.
        FileNotFoundError: In :meth:`setup`, if the data set is not in ``root``; in :meth:`prepare`, if it cannot be
            downloaded.
    """

    dataset_name = "Omniglot"
    mean, std = (0.9187,), (0.2372,)  # at 28x28, where resizing has softened the lines
    native_size, default_image_size = 105, 28
    default_augment, photographs = "none", False
    train_drawers: ClassVar[range] = range(1, 16)

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        part: Literal["all", "background", "evaluation"] = "all",
        image_size: int | None = None,
        normalize: bool = True,
        augment: Augment | None = None,
        rgb: bool = False,
        download: bool = True,
    ) -> None:
        super().__init__(root, image_size, normalize, augment, rgb, download)
        if part not in ("all", "background", "evaluation"):
            raise ValueError(f"`part` is {part!r}; expected 'all', 'background' or 'evaluation'.")
        self.part = part

    def _parts(self) -> Sequence[bool]:
        return {"all": (True, False), "background": (True,), "evaluation": (False,)}[self.part]

    def prepare(self) -> None:
        """Download the archives if ``download`` is set and they are missing."""
        if self.download:
            for background in self._parts():
                self._dataset(download=True, background=background)

    def _open(self) -> None:
        self._drawings = [self._dataset(False, background=background) for background in self._parts()]
        # Sorted by name: torchvision numbers characters in the file system's order, which differs between machines.
        found = sorted(
            (data._characters[character].replace(os.sep, "/"), file, part, index)
            for part, data in enumerate(self._drawings)
            for index, (file, character) in enumerate(data._flat_character_images)
        )
        names = sorted({name for name, *_ in found})
        label_of = {name: label for label, name in enumerate(names)}
        self._rows: dict[str, list[tuple[int, int]]] = {"train": [], "test": []}
        labels: dict[str, list[int]] = {"train": [], "test": []}
        for name, file, part, index in found:
            split = "train" if int(Path(file).stem.split("_")[-1]) in self.train_drawers else "test"
            self._rows[split].append((part, index))
            labels[split].append(label_of[name])
        self._describe(torch.tensor(labels["train"]), torch.tensor(labels["test"]), names)

    def item(self, split: Split, index: int) -> Any:
        """``(image, label)``: a grey PIL image of 105x105 and an int."""
        part, row = self._rows[split][index]
        labels = self.train_labels if split == "train" else self.test_labels
        return self._drawings[part][row][0], int(labels[index])
