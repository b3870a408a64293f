"""The run that a file about one method looks at is made once."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.modules import PLAIN
from conformance.runs import train

from .watching import Watch


@pytest.fixture(scope="module")
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Watch]:
    """A run of the file's ``METHOD``, and what was seen of it."""
    watch, method = Watch(), request.module.METHOD
    return train(PLAIN, method(**method.small), tmp_path_factory.mktemp("watched"), callbacks=[watch]), watch


@pytest.fixture
def run(watched: tuple[Any, Watch]) -> Any:
    return watched[0]


@pytest.fixture
def watch(watched: tuple[Any, Watch]) -> Watch:
    return watched[1]
