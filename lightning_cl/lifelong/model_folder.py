"""A model folder: one configuration, the weights that all versions share, and the versions, each whole or not there."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

import lightning_cl
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import replace_file, write_atomically
from lightning_cl.checkpoint_file import read_checkpoint
from lightning_cl.leftovers import is_abandoned, mark
from lightning_cl.lifelong.shared_weights import joined, shared_part, split

FORMAT = 1
INDEX, BACKBONE, STATE, RECORD, DATA = (
    "model.json",
    "backbone.safetensors",
    "state.ckpt",
    "version.json",
    "data.json.gz",
)
_NEW = ".new-"


class ModelFolder:
    """Files of a model that learns again and again.

    ``model.json`` names the configuration, the versions and the current one, and is replaced last, so a version is
    there completely or not at all. ``versions/N`` has the state (a checkpoint without the shared weights), what
    ``version.json`` tells of it, and the images that it was made of (``data.json.gz``). ``unfinished`` is the call that
    runs now, ``report`` the last call's report.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def unfinished(self) -> Path:
        """Where the call that runs now keeps its files."""
        return self.path / "unfinished"

    @property
    def report(self) -> Path:
        """Where the last call's report is."""
        return self.path / "report"

    def exists(self) -> bool:
        """Whether a model is here."""
        return (self.path / INDEX).is_file()

    def index(self) -> dict[str, Any]:
        """The configuration, the numbers of the versions, and the current one.

        Raises:
            ValueError: If there is none, it is damaged, or a newer lightning_cl wrote it.
        """
        file = self.path / INDEX
        if not file.is_file():
            raise ValueError(
                f"{self.path} is no model folder: it has no {INDEX}; give the folder that `lightning-cl learn DATA "
                "--into DIR` made, or that of a run with its config.yaml and checkpoints."
            )
        content = _read_json(file, file.read_bytes())
        missing = {"configuration", "versions", "current"} - content.keys()
        if missing:
            raise ValueError(_damaged(file, f"it has no {min(missing)!r}"))
        return content

    def check_index(self) -> None:
        """Refuse to begin anew over versions whose index is lost, or over a file.

        Raises:
            ValueError: If there are versions, but no index; or the path is that of a file.
        """
        if self.path.is_file():
            raise ValueError(f"the model folder {self.path} is a file; give a folder, which the first call makes.")
        lost = sorted(self.path.glob(f"versions/[0-9]*/{RECORD}"))
        if lost and not self.exists():
            raise ValueError(
                f"{self.path} has versions ({lost[0].parent}) but no {INDEX}, so a new model here would overwrite "
                f"them; copy {INDEX} back, or give another folder."
            )

    def version(self, number: int | None = None) -> int:
        """The number of a version that is there; ``None``: the current one.

        Raises:
            ValueError: If there is no such version.
        """
        index = self.index()
        number = index["current"] if number is None else number
        if number not in index["versions"]:
            raise ValueError(f"{self.path} has no version {number}; it has {', '.join(map(str, index['versions']))}.")
        return int(number)

    def record(self, number: int | None = None) -> dict[str, Any]:
        """What is known of a version: what was done when, to which data, and how well it answers."""
        file = self._of(number) / RECORD
        return _read_json(file, self._bytes(file))

    def data(self, number: int | None = None) -> dict[str, Any]:
        """The images of the call that made a version."""
        file = self._of(number) / DATA
        try:
            return _read_json(file, gzip.decompress(self._bytes(file)))
        except (OSError, EOFError) as error:
            raise ValueError(_damaged(file, str(error))) from error

    def checkpoint(self, number: int | None = None) -> dict[str, Any]:
        """The whole checkpoint of a version.

        Raises:
            ValueError: If a file is damaged or missing.
        """
        return joined(read_checkpoint(self._there(self._of(number) / STATE)), self._shared())

    def _shared(self) -> dict[str, Tensor]:
        file = self.path / BACKBONE
        try:
            return load(self._bytes(file))
        except ValueError:
            raise
        except Exception as error:  # of safetensors, which has its own class
            raise ValueError(_damaged(file, str(error))) from error

    def _of(self, number: int | None) -> Path:
        return self.path / "versions" / str(self.version(number))

    def _there(self, file: Path) -> Path:
        if not file.is_file():
            raise ValueError(_damaged(file, "it is missing"))
        return file

    def _bytes(self, file: Path) -> bytes:
        return self._there(file).read_bytes()

    # ------------------------------------------------------------------ writing

    def add(
        self,
        checkpoint: Mapping[str, Any],
        record: Mapping[str, Any],
        data: Mapping[str, Any],
        configuration: Mapping[str, Any],
        frozen: frozenset[str],
    ) -> int:
        """Write a version and make it the current one; its number.

        Args:
            checkpoint: As a Trainer wrote it.
            record: For ``version.json``.
            data: For ``data.json.gz``.
            configuration: Of the model; kept from the first version on.
            frozen: Names of weights that no version will change; looked at for the first version only.
        """
        index = self.index() if self.exists() else None
        versions = [] if index is None else index["versions"]
        number = max(versions, default=0) + 1
        if index is None:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / BACKBONE, save(shared_part(checkpoint, frozen)))
        folder = self.path / "versions" / f"{_NEW}{mark()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        state = io.BytesIO()
        torch.save(split(checkpoint, self._shared()), state)
        replace_file(folder / STATE, state.getbuffer())
        replace_file(folder / RECORD, _json({"format": FORMAT, "version": number, **record}))
        replace_file(folder / DATA, gzip.compress(_json({"format": FORMAT, **data}), mtime=0))
        target = self.path / "versions" / str(number)
        shutil.rmtree(target, ignore_errors=True)  # of a call that was killed before it was entered
        os.replace(folder, target)
        kept = configuration if index is None else index["configuration"]
        self._write_index({"configuration": kept, "versions": [*versions, number], "current": number})
        self.clear()
        return number

    def go_to(self, number: int) -> None:
        """Make a version the current one; all others stay. What a call left unfinished goes."""
        index = self.index()
        self._write_index({**index, "current": self.version(number)})
        self.clear()

    def clear(self) -> None:
        """Remove what unfinished calls left."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        with suppress(OSError):
            for folder in (self.path / "versions").glob(f"{_NEW}*"):
                if is_abandoned(folder, folder.name.removeprefix(_NEW)):
                    shutil.rmtree(folder, ignore_errors=True)

    def _write_index(self, index: Mapping[str, Any]) -> None:
        content = {**index, "format": FORMAT, "lightning_cl": lightning_cl.__version__}
        write_atomically(self.path / INDEX, _json(content))


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8")


def _read_json(file: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text.decode("utf-8"))
        newest = int(content["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_damaged(file, str(error))) from error
    if newest > FORMAT:
        raise ValueError(
            f"{file} is of format {newest}, but lightning_cl {lightning_cl.__version__} reads up to {FORMAT}; install "
            "a newer lightning_cl (`pip install -U lightning-cl`)."
        )
    return dict(content)


def _damaged(file: Path, reason: str) -> str:
    return (
        f"{file} is damaged or half written ({reason}); copy the model folder again, or go back to another version "
        "with `--to VERSION`."
    )
