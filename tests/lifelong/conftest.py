"""Models that several tests look at, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lightning_cl.callbacks import PrototypeClassifier
from lightning_cl.lifelong import LearnedModel, create, load

from .digit_folders import write_digits


@pytest.fixture(scope="session")
def months(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three folders: digits 0 and 1; 2 and 3; 1 again and 4."""
    root = tmp_path_factory.mktemp("months")
    parts = [((0, 1), 0), ((2, 3), 0), ((1, 4), 10)]
    return [write_digits(root / f"month{i}", classes, start=start) for i, (classes, start) in enumerate(parts, 1)]


@pytest.fixture(scope="session")
def taught(months: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with class means, at version 2 of 2."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    model = create(folder, methods=[PrototypeClassifier()], batch_size=8)
    for month in months[:2]:
        model.learn(month)
    return folder


@pytest.fixture
def model(taught: Path, tmp_path: Path) -> LearnedModel:
    """A copy of it."""
    return load(shutil.copytree(taught, tmp_path / "model"))
