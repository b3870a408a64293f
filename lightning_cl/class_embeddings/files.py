"""Targets from a tensor, a dictionary, or a file of either."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_cl.class_embeddings.base import TargetProvider, check_targets, normal_name


class TensorTargets(TargetProvider):
    """Vectors by class name; names are compared in lower case, with underscores and hyphens as spaces.

    Args:
        vectors: Name to ``(dim,)`` vector, or a ``(K, dim)`` tensor or array together with ``names``.
        names: Class names of the rows.

    Raises:
        ValueError: If names and rows differ in number, a name comes twice, rows differ in length, or a vector is zero
            or not finite.
    """

    def __init__(self, vectors: Mapping[str, Any] | Tensor | np.ndarray, names: Sequence[str] | None = None) -> None:
        self._rows, self._place = _table(vectors, names, "the targets")

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._rows.shape[1]

    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` vectors.

        Raises:
            ValueError: If a name is missing; the nearest ones are named.
        """
        return look_up(self._rows, self._place, names, "the targets")


class FileTargets(TargetProvider):
    """Vectors from a file, read when first needed.

    Args:
        path: ``.npz`` with ``embeddings`` ``(K, dim)`` and ``names`` ``(K,)`` texts; ``.safetensors`` with
            ``embeddings`` and ``names`` (a JSON list) in its metadata, or one vector per class name; ``.pt`` with a
            dictionary of either kind, read with ``weights_only=True``. Nothing is unpickled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._table: tuple[Tensor, dict[str, int]] | None = None

    def _open(self) -> tuple[Tensor, dict[str, int]]:
        if self._table is None:
            self._table = _table(*read_targets(Path(self.path)), repr(self.path))
        return self._table

    @property
    def dim(self) -> int:
        """Length of the vectors; reads the file."""
        return self._open()[0].shape[1]

    def targets(self, names: Sequence[str]) -> Tensor:
        """``(n, dim)`` vectors.

        Raises:
            ValueError: If a name is missing; the nearest ones are named.
        """
        return look_up(*self._open(), names, repr(self.path))


def read_targets(path: Path) -> tuple[Any, Sequence[str] | None]:
    """Vectors and names of a file; see :class:`FileTargets`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} with targets; give an .npz, .safetensors or .pt file.")
    if path.suffix == ".npz":
        content: Any = _read_npz(path)
    elif path.suffix == ".safetensors":
        return _read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    else:
        raise ValueError(f"{str(path)!r} ends in {path.suffix!r}; targets come from .npz, .safetensors or .pt files.")
    if isinstance(content, Mapping) and "embeddings" in content:
        if "names" not in content:
            raise ValueError(f"{str(path)!r} has `embeddings` but no `names`; add the class name of every row.")
        return content["embeddings"], [str(name) for name in content["names"]]
    return content, None


def _read_npz(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        raise ValueError(f"{str(path)!r} holds pickled objects, which are not read; save `names` as texts.") from error


def _read_safetensors(path: Path) -> tuple[Any, Sequence[str] | None]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    if "embeddings" not in content:
        return content, None
    if "names" not in metadata:
        raise ValueError(f"{str(path)!r} has `embeddings` but no `names` in its metadata; add a JSON list of names.")
    return content["embeddings"], [str(name) for name in json.loads(metadata["names"])]


def _table(vectors: Any, names: Sequence[str] | None, where: str) -> tuple[Tensor, dict[str, int]]:
    if isinstance(vectors, Mapping):
        lengths = {name: len(torch.as_tensor(vector).flatten()) for name, vector in vectors.items()}
        if not lengths or len(set(lengths.values())) > 1:
            raise ValueError(f"the vectors of {where} have the lengths {lengths}; give all the same length.")
        names, vectors = list(vectors), torch.stack([torch.as_tensor(v).flatten() for v in vectors.values()])
    rows = torch.as_tensor(vectors).float()
    if names is None:
        raise ValueError(f"{where} need the class name of every row; give `names`.")
    if rows.ndim != 2 or len(rows) != len(names) or not len(rows):
        raise ValueError(f"{where} have the shape {tuple(rows.shape)} but {len(names)} names; give one row per name.")
    place: dict[str, int] = {}
    for at, name in enumerate(names):
        if place.setdefault(normal_name(name), at) != at:
            raise ValueError(f"{where} have the class {name!r} twice; leave one out.")
    check_targets(rows, names, threshold=2.0)  # classes are told apart among those that are used
    return rows, place


def look_up(rows: Tensor, place: Mapping[str, int], names: Sequence[str], where: str) -> Tensor:
    """Rows of the names; see :class:`TensorTargets`."""
    missing = [name for name in names if normal_name(name) not in place]
    if missing:
        near = get_close_matches(normal_name(missing[0]), list(place), n=3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(list(place)[:5])}, ..."
        raise ValueError(f"{where} have no vector for {len(missing)} class(es), such as {missing[0]!r}; {hint}.")
    return rows[[place[normal_name(name)] for name in names]]
