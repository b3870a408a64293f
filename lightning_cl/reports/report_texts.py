"""What a report holds besides its fields: the tables as text, and the versions that it was made with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from torch import Tensor

from lightning_cl.reports.files import to_csv


def installed_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages a result depends on; None for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name, package in (("lightning_cl", "lightning-cl"), ("torch",) * 2, ("lightning",) * 2, ("timm",) * 2):
        try:
            versions[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def matrix_csv(matrix: Tensor) -> str:
    """A header, then a line for each stage; an empty cell was not measured."""
    head = ["after_task", *(f"task_{task}" for task in range(len(matrix)))]
    return to_csv([head, *([stage, *row] for stage, row in enumerate(matrix.tolist()))])


def curve_csv(section: Mapping[str, Any]) -> str:
    """A line for each evaluation inside the run, the accuracy on each task behind; an empty cell was not measured."""
    curve, by_task = section["curve"], section["task_accuracy"]
    head = [*curve, *(f"task_{task}" for task in range(len(by_task[0]) if by_task else 0))]
    rows = ((*point, *tasks) for *point, tasks in zip(*curve.values(), by_task, strict=True))
    return to_csv([head, *([int(v) if isinstance(v, bool) else v for v in row] for row in rows)])
