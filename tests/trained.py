"""A short run of every method, made once for all tests that want a trained model or its checkpoint."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from conformance.methods import make
from conformance.modules import PLAIN, PlainModule, suited
from conformance.runs import finished_run, train
from lightning.pytorch import seed_everything
from torch import Tensor

import lightning_cl

_FOLDER = TemporaryDirectory()


@cache
def checkpoint_of(method: type, **arguments: Any) -> Path:
    """The checkpoint of a run over the three tasks of the conformance stream."""
    plain = not arguments
    run = finished_run(method, PLAIN) if plain else train(PLAIN, make(method, **arguments), Path(_FOLDER.name))
    path = Path(_FOLDER.name) / f"{method.__name__}-{abs(hash(tuple(arguments.items())))}.ckpt"
    run.trainer.save_checkpoint(path)
    return path


def base_model(seed: int = 0, method: type = PlainModule) -> Any:
    """The model as it was before the training of :func:`checkpoint_of` (with seed 0), of a kind that suits a method."""
    seed_everything(seed, verbose=False)
    return suited(PLAIN, method).build("adamw", 0.0)


def restored(method: type, **arguments: Any) -> Any:
    """The trained model."""
    return lightning_cl.restore(
        checkpoint_of(method, **arguments), base_model(method=method), [make(method, **arguments)]
    )


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(3))
