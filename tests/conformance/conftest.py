"""Runs that several tests look at are made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .methods import make
from .modules import Case
from .runs import Run, train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A finished run of a method on a module; shared, so only to be looked at."""
    runs: dict[Any, Run] = {}

    def get(method: type, case: Case, optimizer: str = "adamw") -> Run:
        key = (method, case, optimizer)
        if key not in runs:
            runs[key] = train(case, make(method), tmp_path_factory.mktemp("run"), optimizer=optimizer)
        return runs[key]

    return get
