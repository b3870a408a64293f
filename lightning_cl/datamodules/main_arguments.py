"""Checks what a stream is made of: a source, and a scenario."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lightning_cl.datamodules.argument_kinds import shown
from lightning_cl.datamodules.scenarios.base import Scenario
from lightning_cl.datamodules.sources.base import Source
from lightning_cl.datamodules.table import StreamTable
from lightning_cl.namespace import LightningDataModule

_ORDER = "`ContinualDataModule(source, scenario)`"


def check_source(source: Any) -> None:
    """Check that there is a source.

    Raises:
        ValueError: With what was given, and how it becomes a source.
    """
    if isinstance(source, Source):
        return
    if isinstance(source, Scenario) or (isinstance(source, type) and issubclass(source, Scenario)):
        how = f"a source comes first and the scenario second: {_ORDER}"
    elif isinstance(source, type):
        own = source.__name__ if issubclass(source, Source) else "Digits"
        how = f"expected an instance of a source, such as `{own}()`"
    elif isinstance(source, LightningDataModule):
        how = "expected a source: `DataModuleSource(your_datamodule)`"
    elif isinstance(source, (str, os.PathLike)):
        how = f"expected a source, such as `ImageFolder({os.fspath(source)!r})` for a folder of images"
    else:
        how = "expected a source, such as `DatasetSource(train, test)` of two data sets or `ArraySource(train, test)`"
    raise ValueError(f"`source` is {shown(source)}; {how}.")


def check_scenario(scenario: Any) -> None:
    """Check that there is a scenario.

    Raises:
        ValueError: With what was given, and how it becomes a scenario.
    """
    if isinstance(scenario, Scenario):
        return
    usual = "ClassIncremental(num_tasks=5)"
    if isinstance(scenario, Source):
        how = f"a source comes first and the scenario second: {_ORDER}"
    elif isinstance(scenario, type):
        own = f"{scenario.__name__}(...)" if issubclass(scenario, Scenario) else usual
        how = f"expected an instance of a scenario, such as `{own}`"
    elif isinstance(scenario, StreamTable):
        how = "expected a scenario: `table.as_scenario()`"
    elif isinstance(scenario, int):
        how = f"expected a scenario, such as `ClassIncremental(num_tasks={scenario})`"
    elif isinstance(scenario, Sequence) and not isinstance(scenario, str):
        how = "expected a scenario, such as `ClassIncremental(classes_per_task=...)` with these tasks"
    else:
        how = f"expected a scenario, such as `{usual}`"
    raise ValueError(f"`scenario` is {shown(scenario)}; {how}.")
