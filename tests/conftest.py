"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "offline")  # W&B reads it once in a process, before any logger can say so

import pytest
import torch
from hypothesis import settings
from lightning.pytorch import Trainer  # noqa: F401  (before scikit-learn, after which `limit_train_batches: 1` reads as 1.0)
from ports import free_port

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_configure() -> None:
    gc.disable()  # until all tests are found: nothing of them is garbage, but each look for it takes longer


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which looks at the marks once
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `pytest -n 2`, conformance tests of a method, which look at the same runs, stay in one process."""
    for item in items:
        method = getattr(item, "callspec", None) and item.callspec.params.get("method")
        if isinstance(method, type) and "conformance" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group(method.__name__))


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Lightning leaves its handlers after an error in a teardown, litdata after it has written a set."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts meet where no other test's do."""
    monkeypatch.setenv("MASTER_PORT", str(free_port()))


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of a report take a third of a short run: they are empty files but where tests are about them."""
    if "reports" not in request.path.parts and request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("lightning_cl.reports.report._save_figure", lambda path, draw: path.touch())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and weights that lies beside a development checkout; not part of the package."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of shared real data is not beside this checkout")
    return folder
