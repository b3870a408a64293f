"""What a call of ``learn`` was asked for, on the disk while it runs, so that a killed one can be told and continued."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import write_atomically
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
            ValueError: If another call is unfinished here.
        """
        before = unfinished_call(folder)
        wanted = json.loads(json.dumps(asdict(self)))
        if before is None:
            content = {**wanted, "format": FORMAT}
            write_atomically(folder.unfinished / _FILE, json.dumps(content, indent=1).encode("utf-8"))
        elif asdict(before) != wanted:
            drop = f"`--to {before.parent}`" if before.parent is not None else f"deleting {folder.unfinished}"
            other = [name for name, value in asdict(before).items() if value != wanted[name]]
            raise ValueError(
                f"a call that was to learn {before.data} was stopped in {folder.path}, and this one is another "
                f"({', '.join(other)}); go on with that (`learn --into {folder.path}` without data), or drop it by "
                f"{drop}."
            )


def unfinished_call(folder: ModelFolder) -> Call | None:
    """The call that was stopped in a model folder; ``None``: there is none."""
    file = folder.unfinished / _FILE
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("format", None)
    return Call(**content)


def absolute(path: str | os.PathLike[str]) -> str:
    """A folder, wherever the next call is made from."""
    return os.path.abspath(os.fspath(path))
