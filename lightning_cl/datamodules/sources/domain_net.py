"""DomainNet: 345 classes in six styles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_cl.datamodules.sampling import hold_out
from lightning_cl.datamodules.sources.file_lists import FileList, check_listed, names_of_labels, read_file_list
from lightning_cl.datamodules.sources.image_files import class_folders, image_files
from lightning_cl.datamodules.sources.image_folder import ImageFolder
from lightning_cl.datamodules.sources.images import Augment

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


class DomainNet(ImageFolder):
    """DomainNet (Peng et al., arXiv:1812.01754): images in ``root/<domain>/<class>/``, with class and domain.

    ``DomainIncremental`` makes one task per domain of it, ``ClassIncremental`` tasks of classes over all domains. With
    the official lists ``<domain>_train.txt`` and ``<domain>_test.txt`` (beside the images, or in ``lists``) the split
    and the class ids are theirs. Without them a seeded fifth of every class in every domain is held out, and ids
    follow the sorted folder names; :meth:`digest`, and so the hash of the stream, tells splits apart.

    Args:
        root: The folder that holds the domains' folders.
        domains: The domains to use, in the order of their ids; by default all that are in ``root``.
        lists: Folder of the official lists; by default ``root``, if they are there.
        test_fraction: Without lists: share of each class in each domain that makes the test split. A single image
            is for training.
        split_seed: Without lists: decides which files those are; it does not depend on the seed of the stream.
        image_size: Height and width in pixels of the transformed images.
        normalize: Use ImageNet's mean and standard deviation. ``False`` leaves pixels in [0, 1], which the published
            prompt methods feed their ViT.
        augment: See :class:`ImageFolder`.

    Raises:
        ValueError: If a domain is unknown or named twice; in :meth:`setup`, if the lists contradict each other.
        FileNotFoundError: In :meth:`setup`, if images or lists are missing; it says where to get the images.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data/domainnet",
        domains: Sequence[str] | None = None,
        lists: str | os.PathLike[str] | None = None,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        image_size: int = 224,
        normalize: bool = True,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(root, test_fraction, split_seed, image_size, normalize, augment)
        if domains is not None and (not domains or set(domains) - set(DOMAINS) or len(set(domains)) < len(domains)):
            raise ValueError(f"`domains` is {list(domains)}; name some of {', '.join(DOMAINS)}, each once.")
        self.domains, self.lists = domains, lists

    def _open(self) -> None:
        present = [name for name in DOMAINS if (self.root / name).is_dir()]
        domains = present if self.domains is None else list(self.domains)
        missing = [name for name in domains if name not in present] or ([] if domains else list(DOMAINS))
        if missing:
            raise FileNotFoundError(
                f"the DomainNet folders {missing} are not in `root`={str(self.root)!r}; download the domains' archives "
                '("cleaned version") and file lists from https://ai.bu.edu/M3SDA/ and unpack them there, so that '
                f"there is a folder {str(self.root / missing[0] / 'airplane')!r}, or leave the domain out with "
                "`domains=[...]`."
            )
        self._folders = {"train": self.root, "test": self.root}
        parts = self._listed(domains) or self._split(domains)
        classes = names_of_labels([files for pair in parts for files in pair])
        train, test = (_join([pair[split] for pair in parts]) for split in (0, 1))
        self._paths = {"train": train[0], "test": test[0]}
        ids = [[domain for domain, pair in enumerate(parts) for _ in pair[split][0]] for split in (0, 1)]
        self._describe(train[1], test[1], classes, ids[0], ids[1], domains)

    def _listed(self, domains: list[str]) -> list[tuple[FileList, FileList]] | None:
        """Training and test files of each domain by the official lists; ``None`` if there are none."""
        folder = self.root if self.lists is None else Path(self.lists)
        names = [f"{domain}_{split}.txt" for domain in domains for split in ("train", "test")]
        missing = [name for name in names if not (folder / name).is_file()]
        if len(missing) == len(names) and self.lists is None:
            return None
        if missing:
            raise FileNotFoundError(
                f"the DomainNet file lists {missing} are not in {str(folder)!r}; download them from "
                "https://ai.bu.edu/M3SDA/, or remove the others to have the images split by `split_seed`."
            )
        files = [read_file_list(folder / name) for name in names]
        pairs = list(zip(files[::2], files[1::2], strict=True))
        for train, test in pairs:
            check_listed(self.root, train[0], test[0])
        return pairs

    def _split(self, domains: list[str]) -> list[tuple[FileList, FileList]]:
        """Training and test files of each domain by the seed, class by class."""
        assert self.test_fraction is not None
        if not 0.0 < self.test_fraction < 1.0:
            raise ValueError(f"`test_fraction` is {self.test_fraction}; give the test split's share, in (0, 1).")
        classes = sorted({name for domain in domains for name in class_folders(self.root / domain)})
        pairs = []
        for domain in domains:
            names, ids = image_files(self.root / domain, classes)
            paths, labels = [f"{domain}/{name}" for name in names], torch.tensor(ids, dtype=torch.long)
            several = (torch.bincount(labels, minlength=len(classes))[labels] > 1).nonzero().flatten()
            # By name, so that a domain's split does not depend on which others are used.
            seed = self.split_seed * len(DOMAINS) + DOMAINS.index(domain)
            held = several[hold_out(labels[several], self.test_fraction, seed)[1]] if len(several) else several
            in_test = torch.zeros(len(labels), dtype=torch.bool).index_fill(0, held, True).tolist()
            test, train = ([i for i, held_out in enumerate(in_test) if held_out == wanted] for wanted in (True, False))
            pairs.append((_pick(paths, ids, train), _pick(paths, ids, test)))
        return pairs


def _pick(paths: list[str], labels: list[int], rows: list[int]) -> FileList:
    return [paths[i] for i in rows], [labels[i] for i in rows]


def _join(parts: Sequence[FileList]) -> FileList:
    return [path for paths, _ in parts for path in paths], [label for _, labels in parts for label in labels]
