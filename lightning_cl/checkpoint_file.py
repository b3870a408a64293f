"""Reads checkpoints as data: nothing in a file is run, and a file that is not as it was written is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightning_cl.namespace import Strategy, TorchCheckpointIO

#: A path, or an address that fsspec can follow.
FilePath = str | Path


class CheckpointReadError(ValueError):
    """A checkpoint that cannot be used: damaged, or more than data; nothing of it was taken over."""


class DataCheckpointIO(TorchCheckpointIO):
    """Lightning's reader and writer of checkpoints, except that every file is read by :func:`read_checkpoint`.

    The first checkpoint is looked at before it is written: one that could not be read back so is refused.
    """

    _looked_at = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: FilePath, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path`` as Lightning does."""
        self.look_at(checkpoint)
        super().save_checkpoint(checkpoint, path, storage_options)

    def look_at(self, checkpoint: dict[str, Any], file: io.BytesIO | None = None) -> None:
        """Refuse a first checkpoint (and the file it was saved to) that holds more than data.

        What the next ones hold is of the same kinds.

        Raises:
            ValueError: With the three ways out.
        """
        if not self._looked_at:
            refuse_more_than_data(checkpoint, file or _saved(checkpoint))
        self._looked_at = True

    def load_checkpoint(
        self, path: FilePath, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the file at ``path``, or at an address.

        Raises:
            ValueError: If ``weights_only=False`` was asked for.
            CheckpointReadError: As :func:`read_checkpoint`.
        """
        if weights_only is False:
            raise ValueError(
                "`weights_only=False` lets a checkpoint run code, and checkpoints are read as data here; leave it out, "
                "and allow classes of your own with `torch.serialization.add_safe_globals([MyClass])`."
            )
        return read_checkpoint(path, map_location)


def read_as_data(strategy: Strategy) -> None:
    """Let a strategy that reads with Lightning's plain plugin, also inside another, read checkpoints as data."""
    replace_plain_io(strategy, DataCheckpointIO)


def replace_plain_io(strategy: Strategy, kind: type[DataCheckpointIO]) -> None:
    """Put a ``kind`` in place of Lightning's plain plugin; one that the user chose stays."""
    outer: Any = None
    inner: Any = strategy.checkpoint_io
    while getattr(inner, "checkpoint_io", None) is not None:  # AsyncCheckpointIO and other wrappers
        outer, inner = inner, inner.checkpoint_io
    if type(inner) not in (TorchCheckpointIO, DataCheckpointIO) or type(inner) is kind:
        return
    if outer is None:
        strategy.checkpoint_io = kind()
    else:
        outer._checkpoint_io = kind()


def is_local(path: FilePath) -> bool:
    """Whether fsspec finds a path on this machine's file system."""
    return bool(get_protocol(str(path)) == "file")


def read_checkpoint(path: FilePath, map_location: Any = "cpu") -> dict[str, Any]:
    """Read what a checkpoint holds, tensors and plain values, with ``weights_only=True`` wherever the file is from.

    Every part of the file is compared with the checksum (CRC-32) that PyTorch stored with it.

    Args:
        path: A path, or an address that fsspec can follow.
        map_location: Where to put the tensors, as in ``torch.load``.

    Raises:
        FileNotFoundError: If there is no file.
        CheckpointReadError: If the file is damaged (the message names the next older intact one beside it), or holds
            more than data.
    """
    file = _opened(path)
    found = damage(file)
    if found is not None:
        raise CheckpointReadError(_damaged(path, found))
    try:
        unsafe = get_unsafe_globals_in_checkpoint(_rewound(file))
        content = None if unsafe else torch.load(_rewound(file), map_location=map_location, weights_only=True)
    except UnpicklingError as error:  # of kinds that the list above does not show
        raise CheckpointReadError(_more_than_data(path, [])) from error
    except Exception as error:
        raise CheckpointReadError(_damaged(path, f"cannot be read ({str(error).partition(chr(10))[0]})")) from error
    if unsafe:
        raise CheckpointReadError(_more_than_data(path, unsafe))
    if not isinstance(content, dict):
        raise CheckpointReadError(f"{path} holds {type(content).__name__}, not a Trainer's checkpoint; give another.")
    return content


def damage(file: Path | io.BytesIO) -> str | None:
    """Tell what happened to a damaged file ("was not written to its end"); ``None``: nothing."""
    try:
        with zipfile.ZipFile(file) as archive:  # its directory stands at the end of the file
            broken = archive.testzip()
    except zipfile.BadZipFile:
        return "was not written to its end"
    except Exception as error:  # a flipped bit can look like any feature of a ZIP file
        return f"is not as it was written ({error})"
    return None if broken is None else f"is not as it was written (`{broken}`)"


def is_intact(path: Path) -> bool:
    """Whether a checkpoint is as it was written; a folder (sharded strategies) counts as intact."""
    return path.is_dir() or damage(path) is None


def intact_before(path: Path) -> Path | None:
    """The newest intact checkpoint in the folder of ``path`` that is not newer than it."""
    newest = path.stat().st_mtime_ns if path.exists() else 0
    others = [(other.stat().st_mtime_ns, other) for other in path.parent.glob("*.ckpt") if other != path]
    older = sorted((entry for entry in others if entry[0] <= newest), reverse=True)
    return next((other for _, other in older if is_intact(other)), None)


def refuse_more_than_data(checkpoint: Mapping[str, Any], file: io.BytesIO) -> None:
    """Refuse to write a checkpoint that could not be read back as data.

    Args:
        checkpoint: What was saved.
        file: With ``torch.save``.

    Raises:
        ValueError: With the three ways out.
    """
    unsafe = get_unsafe_globals_in_checkpoint(_rewound(file))
    if unsafe:
        raise ValueError(
            f"the checkpoint would hold {_listed(unsafe)}{_where(checkpoint)}, and could not be read back, since only "
            "tensors and plain values are read from files; leave it out (`self.save_hyperparameters(ignore=[...])`), "
            "save a plain value for it (`str(path)`, a name), or, if it is a class of your own, allow it before "
            "saving and before reading (`torch.serialization.add_safe_globals([MyClass])`)."
        )


def _where(checkpoint: Mapping[str, Any]) -> str:
    """Which entries hold more than data, with the arguments among the hyperparameters."""
    entries = [
        f"`{key}`" if key is name else f"`{name}` of `{key}`"
        for key, value in checkpoint.items()
        for name, part in (value.items() if key.endswith("hyper_parameters") else [(key, value)])
        if get_unsafe_globals_in_checkpoint(_saved(part))
    ]
    return f" ({', '.join(entries)})" if entries else ""


def _saved(value: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def _opened(path: FilePath) -> Path | io.BytesIO:
    """A local path, or the bytes of a file that is elsewhere."""
    system, inner = url_to_fs(str(path))
    try:
        if isinstance(system, LocalFileSystem):
            found = Path(inner).resolve(strict=True)
            if found.is_dir():
                raise CheckpointReadError(_folder(path))
            return found
        return io.BytesIO(system.cat_file(inner))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"Checkpoint file not found: {path}") from error
    except CheckpointReadError:
        raise
    except Exception as error:  # of whichever library fetches it
        raise CheckpointReadError(f"the checkpoint {path} could not be fetched: {error}; try again.") from error


def _rewound(file: Any) -> Any:
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return file


def _folder(path: FilePath) -> str:
    return (
        f"the checkpoint {path} is a folder; give a checkpoint file in it, or, if a sharded strategy wrote it, go on "
        "with that strategy."
    )


def _damaged(path: FilePath, reason: str) -> str:
    older = intact_before(Path(path)) if "://" not in str(path) else None
    other = f"the next older intact one is {older}" if older else "there is no older intact one beside it"
    return f"the checkpoint {path} is damaged: it {reason}; {other}; go on from that, or copy the file again."


def _more_than_data(path: FilePath, names: list[str]) -> str:
    what = _listed(names) if names else "objects"
    return (
        f"the checkpoint {path} holds {what}, which only code from the file could make, so nothing of it was read; "
        "give a checkpoint of tensors and plain values, or, if it is your own file with a class of your own, allow the "
        "class before (`torch.serialization.add_safe_globals([MyClass])`)."
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in sorted(names)[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
