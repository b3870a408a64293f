"""Generators of a stream: the same for the same purpose, and others for others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from lightning_cl.training.step_seed import generator_of


def drawn(seed: int, *purpose: int) -> list[float]:
    module: Any = SimpleNamespace(trainer=SimpleNamespace(datamodule=SimpleNamespace(seed=seed)))
    values: list[float] = torch.rand(3, generator=generator_of(module, *purpose)).tolist()
    return values


def test_what_is_drawn_depends_on_the_stream_s_seed_and_every_number() -> None:
    assert drawn(0, 1, 2) == drawn(0, 1, 2)
    others = [drawn(0, 1, 2), drawn(1, 1, 2), drawn(0, 2, 2), drawn(0, 1, 3), drawn(0, 1)]
    assert len({tuple(values) for values in others}) == len(others)
