"""Checkpoint files that are there completely or not at all."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from lightning_cl.checkpoint_file import DataCheckpointIO, FilePath, is_intact, replace_plain_io
from lightning_cl.leftovers import is_abandoned, mark
from lightning_cl.namespace import Strategy

_TEMPORARY = re.compile(r".+\.ckpt\.(?P<owner>.+-\d+)\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; those that were written before are intact."""


class AtomicCheckpointIO(DataCheckpointIO):
    """``torch.save`` to a temporary file in the same folder, flushed to the disk, then renamed.

    A kill at any moment leaves the previous file or the new one, never half of one. (Lightning's own plugin writes to
    the system's temporary folder and moves the file, which is a copy where the folders are on different disks.) Paths
    that are not local are written as Lightning does; object stores show a file only when it is complete.

    Raises:
        CheckpointWriteError: If a local file cannot be written, with its path, its size and the free space.
        ValueError: If the first checkpoint holds more than data, so that it could not be read back.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: FilePath, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``, in place of the file that is there."""
        system, local = url_to_fs(str(path))
        if storage_options is not None or not isinstance(system, LocalFileSystem):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()  # first the whole of it: PyTorch's writer hides why a disk refuses
        torch.save(checkpoint, buffer)
        self.look_at(checkpoint, buffer)
        write_atomically(Path(local), buffer.getbuffer())


def make_atomic(strategy: Strategy) -> None:
    """Let a strategy that writes with Lightning's plain plugin, also inside another, write atomically.

    A CheckpointIO that the user chose stays; how it writes is its own affair.
    """
    replace_plain_io(strategy, AtomicCheckpointIO)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """:func:`replace_file` in a folder that is made if there is none, for a checkpoint.

    Raises:
        CheckpointWriteError: If the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise CheckpointWriteError(_explain(error, path, len(data))) from error


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Replace the file at ``path`` by ``data``, or leave it as it is.

    Raises:
        OSError: If the disk refuses; what was written of the new file is removed.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        _remove(temporary)
        raise


def prepare_folder(folder: Path) -> None:
    """Make the folder, clear away what killed runs left in it, and see that it can be written to.

    Raises:
        CheckpointWriteError: If it cannot.
    """
    clear_leftovers(folder)
    last = folder / "last.ckpt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _temporary(last).touch()
    except OSError as error:
        raise CheckpointWriteError(_explain(error, last, 0)) from error
    _remove(_temporary(last))


def clear_leftovers(folder: Path) -> list[Path]:
    """Remove temporary files of writes that were killed; those of runs that may be alive stay."""
    found = [path for path in folder.glob("*.tmp") if _is_leftover(path)] if folder.is_dir() else []
    for path in found:
        _remove(path)
    return found


def is_complete(path: Path) -> bool:
    """Whether a checkpoint is as it was written, to its end; a folder (sharded strategies) counts as complete."""
    return is_intact(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{mark()}.tmp")


def _is_leftover(path: Path) -> bool:
    name = _TEMPORARY.fullmatch(path.name)
    return name is not None and is_abandoned(path, name["owner"])


def _remove(path: Path) -> None:
    with suppress(OSError):  # of a folder that cannot be written to, which is reported
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(error: OSError, path: Path, size: int) -> str:
    existing = next((parent for parent in path.parents if parent.is_dir()), Path())
    free = shutil.disk_usage(existing).free
    what = "free some space" if error.errno in _FULL else f"make {path.parent} a folder that can be written to"
    before = f" The {path.name} that was written before is intact." if path.is_file() else ""
    return (
        f"cannot write the checkpoint {path}: {error.strerror or error} ({megabytes(size)} needed, {megabytes(free)} "
        f"free).{before} The run stops, because nothing after that could be continued; {what}, or save to "
        "another folder with `ContinualCheckpoint(dirpath=...)`."
    )


def megabytes(size: int) -> str:
    """``12.3 MB``."""
    return f"{size / 1e6:.1f} MB"
