"""Everything that a finished run leaves behind, as one flat dictionary that can be saved and compared bit for bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from lightning_cl.callbacks import ContinualCallback
from lightning_cl.datamodules.resume import random_states

from .runs import Run
from .watching import Watcher


def record(run: Run) -> dict[str, Any]:
    """Weights, counts, optimisers, schedulers, states of the callbacks and of the stream, the report, random states.

    Tensors and plain Python values by dotted name, so that it can be saved and loaded with ``weights_only=True``.
    """
    trainer = run.trainer
    callbacks = [c for c in trainer.callbacks if isinstance(c, ContinualCallback) and not isinstance(c, Watcher)]
    report = dataclasses.asdict(run.evaluation.build_report(trainer, run.module))
    return dict(
        _leaves(
            {
                **run.result(),
                "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
                "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
                "callbacks": {c.state_key: c.state_dict() for c in callbacks},
                "stream": run.stream.state_dict(),
                "report": {name: value for name, value in report.items() if name != "versions"},
                "logged": dict(trainer.callback_metrics),
                "random": random_states(torch.device("cpu")),
            }
        )
    )


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        entries = [(str(key), entry) for key, entry in value.items()]
    elif isinstance(value, (list, tuple)):
        entries = [(str(key), entry) for key, entry in enumerate(value)]
    else:
        return [(path, value.detach().cpu().clone() if isinstance(value, Tensor) else _plain(value))]
    leaves = [leaf for key, entry in entries for leaf in _leaves(entry, f"{path}/{key}" if path else key)]
    return leaves or [(path, type(value).__name__)]  # an empty one is something, too


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, type(None))) else repr(value)


def differences(actual: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names whose values are not the same bits; NaN is NaN."""
    missing = sorted(actual.keys() ^ expected.keys())
    return missing + [name for name in expected if name in actual and not _same(actual[name], expected[name])]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        exact = {"rtol": 0, "atol": 0, "equal_nan": True}
        return one.dtype == other.dtype and one.shape == other.shape and torch.allclose(one, other, **exact)
    return type(one) is type(other) and (one == other or (one != one and other != other))
