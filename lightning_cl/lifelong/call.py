"""What a call of ``learn`` was asked for, on the disk while it runs, so that a killed one can be told and continued."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import write_atomically
from lightning_cl.datamodules.sources.image_files import split_folder
from lightning_cl.lifelong.model_folder import FORMAT, ModelFolder

_FILE = "call.json"


@dataclass
class Call:
    """One call.

    Attributes:
        data: The folder, as an absolute path; of another source its class.
        parent: The version that learns; ``None``: the first call.
        configuration: Of the model.
        epochs: Passes over the data; ``None``: as the configuration has it.
        test_fraction: Share that is held out; ``None``: as the configuration has it.
        rename: New name by name of a class in the data.
    """

    data: str
    parent: int | None
    configuration: Mapping[str, Any]
    epochs: int | None = None
    test_fraction: float | None = None
    rename: dict[str, str] = field(default_factory=dict)

    def begin(self, folder: ModelFolder) -> None:
        """Write down what is asked for, or find that it goes on.

        Raises:
            ValueError: If another call is unfinished here, or versions are here whose index is lost.
        """
        before = unfinished_call(folder)
        wanted = json.loads(json.dumps(asdict(self)))
        if before is None:
            folder.check_index()
            shutil.rmtree(folder.unfinished, ignore_errors=True)  # of a finished call that was killed while tidying up
            content = {**wanted, "format": FORMAT}
            write_atomically(folder.unfinished / _FILE, json.dumps(content, indent=1).encode("utf-8"))
        elif asdict(before) != wanted:
            other = [name for name, value in asdict(before).items() if value != wanted[name]]
            raise ValueError(
                f"a call that was to learn {before.data} was stopped in {folder.path}, and this one is another "
                f"({', '.join(other)}); go on with that (`learn --into {folder.path}` without data), or drop it by "
                f"{_way_out(before, folder)}."
            )


def unfinished_call(folder: ModelFolder) -> Call | None:
    """The call that was stopped in a model folder; ``None``: there is none.

    Raises:
        ValueError: If what was written down of it is damaged, or of another lightning_cl.
    """
    file = folder.unfinished / _FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        content.pop("format", None)
        return Call(**content)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is damaged or of another lightning_cl ({error}), so the call that was stopped cannot go on; "
            f"delete {folder.unfinished} and call `learn` with the data again (all versions stay)."
        ) from error


def check_none_stopped(folder: ModelFolder, what: str) -> None:
    """Refuse a change under which a stopped call would be lost.

    Raises:
        ValueError: If there is one.
    """
    stopped = unfinished_call(folder)
    if stopped is not None:
        raise ValueError(
            f"a call that was to learn {stopped.data} was stopped in {folder.path}, and {what} would lose it; go on "
            f"with it first (`learn --into {folder.path}` without data), or drop it by "
            f"{_way_out(stopped, folder)}."
        )


def _way_out(stopped: Call, folder: ModelFolder) -> str:
    """What gives up a stopped call."""
    return f"`--to {stopped.parent}`" if stopped.parent is not None else f"deleting {folder.unfinished}"


def check_apart(folder: ModelFolder, data: str) -> None:
    """Refuse a model folder inside the data, where its files would be taken for classes.

    Raises:
        ValueError: If it is there.
    """
    model, root = folder.path.resolve(), Path(data).resolve()
    if model.is_relative_to(root) and split_folder(root, "train") is None:
        raise ValueError(
            f"the model folder {folder.path} lies in the data {data}, where its files would be taken for images of a "
            "class; give a model folder elsewhere."
        )


def absolute(path: str | os.PathLike[str]) -> str:
    """A folder, wherever the next call is made from."""
    return os.path.abspath(os.fspath(path))
