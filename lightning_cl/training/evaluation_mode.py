"""Passes without gradient, in eval mode, over batches that are fetched as between two steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.training.batch import Inputs

#: Those of one process; those of all of them together have the rows of the others.
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode, with gradients as they are; afterwards every part is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def with_batch_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norm uses the statistics of the batch and leaves its running ones as they are."""
    layers = [part for part in module.modules() if isinstance(part, _BATCH_NORMS)]
    kept = [(layer.training, layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False
    try:
        yield
    finally:
        for layer, (training, tracks) in zip(layers, kept, strict=True):
            layer.training, layer.track_running_stats = training, tracks


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradient; afterwards every part is in the mode that it was in."""
    try:
        with in_eval_mode(module), torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()  # 16-bit copies of weights made here would have no gradient (torch < 2.6)


@contextmanager
def known_statistics(module: nn.Module, inputs: Any) -> Iterator[None]:
    """Let batch norm use its running statistics where the inputs are one sample, which has no statistics of its own."""
    parts = inputs.parts.values() if isinstance(inputs, Inputs) else (inputs,)
    single = {len(part) for part in parts if isinstance(part, Tensor) and part.ndim} == {1}
    layers = [part for part in module.modules() if single and part.training and isinstance(part, _BATCH_NORMS)]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def expect_eval_mode() -> None:
    """Frozen parts stay in eval mode on purpose; Lightning's warning about it would only alarm."""
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")


def in_default_precision(batches: Iterable[Any]) -> Iterator[Any]:
    """Fetch batches as between two steps: within one, ``precision="64-true"`` lets transforms draw other numbers."""
    iterator = iter(batches)
    while True:
        within = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            batch = next(iterator)
        except StopIteration:
            return
        finally:
            torch.set_default_dtype(within)
        yield batch
