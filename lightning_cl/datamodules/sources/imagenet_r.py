"""ImageNet-R: renditions (art, cartoons, sketches, ...) of 200 ImageNet classes."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_cl.datamodules.sources.file_lists import below, check_listed, names_of_labels, read_file_list
from lightning_cl.datamodules.sources.image_files import class_folders
from lightning_cl.datamodules.sources.image_folder import ImageFolder
from lightning_cl.datamodules.sources.images import Augment

_FOLDER = "imagenet-r"


class ImageNetR(ImageFolder):
    """ImageNet-R (Hendrycks et al., arXiv:2006.16241): 30,000 images in ``root/imagenet-r/<wnid>/``.

    It has no official split. With the file lists that a paper published (the repository of CODA-Prompt has
    ``imagenet-r_train.yaml`` and ``imagenet-r_test.yaml``: 24,000 and 6,000 images) the split and the class ids are
    theirs, which are not in alphabetical order. Without lists a seeded fifth of every class is held out, and ids
    follow the sorted folder names; :meth:`digest`, and so the hash of the stream, tells splits apart.

    Args:
        root: The folder that holds ``imagenet-r``, or that folder itself.
        train_list: A file list: YAML with ``data`` and ``targets``, or text lines of ``path label``.
        test_list: As ``train_list``.
        test_fraction: Without lists: share of each class that makes the test split.
        split_seed: Without lists: decides which files those are; it does not depend on the seed of the stream.
        image_size: Height and width in pixels of the transformed images.
        normalize: Use ImageNet's mean and standard deviation. ``False`` leaves pixels in [0, 1], which the published
            prompt methods feed their ViT.
        augment: See :class:`ImageFolder`.

    Raises:
        ValueError: If only one list is given; in :meth:`setup`, if the lists contradict each other.
        FileNotFoundError: In :meth:`setup`, if images or lists are missing; it says where to get the images.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        train_list: str | os.PathLike[str] | None = None,
        test_list: str | os.PathLike[str] | None = None,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        image_size: int = 224,
        normalize: bool = True,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(root, test_fraction, split_seed, image_size, normalize, augment)
        if (train_list is None) != (test_list is None):
            given, missing = ("train", "test") if test_list is None else ("test", "train")
            raise ValueError(f"`{given}_list` is given alone; give the `{missing}_list` of the same split, too.")
        self.train_list, self.test_list = train_list, test_list

    def _open(self) -> None:
        given = self.root
        folder = given / _FOLDER if (given / _FOLDER).is_dir() else given
        if not folder.is_dir() or not class_folders(folder):
            raise FileNotFoundError(
                f"ImageNet-R is not in `root`={str(given)!r}; download "
                "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar (2 GB) and unpack it there, so that there "
                f"is a folder {str(given / _FOLDER / 'n01443537')!r}."
            )
        if self.train_list is None or self.test_list is None:
            self._open_single_folder(folder)
            return
        lists = []
        for path in (self.train_list, self.test_list):
            paths, labels = read_file_list(Path(path))
            lists.append((below(paths, _FOLDER), labels))
        check_listed(folder, lists[0][0], lists[1][0])
        self._folders = {"train": folder, "test": folder}
        self._publish(names_of_labels(lists), lists[0], lists[1])
