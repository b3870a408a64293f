"""Finds where a training step reads a tensor's values: on a GPU the process waits there until all is computed."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.overrides import TorchFunctionMode

import lightning_cl

PACKAGE = Path(lightning_cl.__file__).parent
#: Functions whose answer, or its shape, depends on values.
READING = {
    *("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "equal", "allclose"),
    *("is_nonzero", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"),
}


class HostReads(TorchFunctionMode):
    """Counts readings of values by the package's own lines: ``sites["callbacks/x.py:function"]``.

    What the stream's bookkeeping reads (``datamodules``) are positions and labels that live on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sites: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _reads(getattr(function, "__name__", ""), args):
            site = _site(sys._getframe(1))
            if site is not None:
                self.sites[site] += 1
        return function(*args, **(kwargs or {}))


def _reads(name: str, args: Any) -> bool:
    if name in ("__getitem__", "__setitem__"):
        masks = [key for key in (args[1] if isinstance(args[1], tuple) else (args[1],)) if _is_mask(key)]
        filled = name == "__setitem__" and not (isinstance(args[2], Tensor) and args[2].ndim)  # no shape depends on it
        return bool(masks) and not filled
    return name in READING


def _is_mask(key: Any) -> bool:
    return isinstance(key, Tensor) and key.dtype == torch.bool and key.ndim > 0


def _site(frame: Any) -> str | None:
    """File and function of the line that called torch, where it is one of the package's."""
    while frame is not None and "/torch/" in frame.f_code.co_filename:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE) or path.is_relative_to(PACKAGE / "datamodules"):
        return None
    return f"{path.relative_to(PACKAGE).as_posix()}:{frame.f_code.co_name}"


class Opening(Callback):
    """Begins to count where a step begins, but for the first and last of a task; :class:`Closing` ends it."""

    def __init__(self, reads: HostReads, stack: ExitStack) -> None:
        self.reads, self.stack = reads, stack

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if 0 < batch_idx < trainer.num_training_batches - 1:
            self.stack.enter_context(self.reads)


class Closing(Callback):
    """Comes last, so that what other callbacks do behind a step is counted, too."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.stack.close()
