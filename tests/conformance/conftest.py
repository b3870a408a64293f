"""Runs that several tests look at are made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .runs import Run, finished_run


@pytest.fixture(scope="session")
def finished() -> Callable[..., Run]:
    """See :func:`finished_run`."""
    return finished_run
