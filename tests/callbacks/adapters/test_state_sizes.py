"""What methods with a pre-trained network keep, counted from their state: 3 blocks of width 32, 3 tasks, 6 classes."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.modules import PLAIN
from conformance.runs import attached

from lightning_cl.callbacks import (
    APER,
    DKVB,
    EASE,
    MOS,
    SEMA,
    SLCA,
    CoSO,
    InfLoRA,
    LoRA,
    MoRA,
    MultiLane,
    PrototypeClassifier,
    SDLoRA,
)

pytestmark = pytest.mark.filterwarnings("ignore")
TASKS, CLASSES, BLOCKS, D, HIDDEN = 3, 6, 3, 32, 64
ADAPTER = BLOCKS * (2 * D * 4 + 4 + D)  # of rank 4
HEAD = CLASSES * D + CLASSES
FEW = 24  # counters, flags and scales of a method

SIZES = {
    PrototypeClassifier(): CLASSES * (D + 1),
    DKVB(codebooks=4, pairs=16, key_width=3): 4 * 16 * (3 + CLASSES) + 4 * D * 3 + 4 * 16 + CLASSES,
    LoRA(rank=2): BLOCKS * 2 * (D + 3 * D + D + D + 2 * (D + HIDDEN)),
    APER(rank=4): ADAPTER + CLASSES * (2 * D + 1),
    EASE(rank=4): TASKS * ADAPTER + CLASSES * (TASKS * D + 1),
    SLCA(): CLASSES * (D + D * D) + CLASSES + HEAD + CLASSES,
    SLCA(covariance="diagonal"): CLASSES * (D + D) + CLASSES + HEAD + CLASSES,
    MOS(rank=4): TASKS * ADAPTER + CLASSES * (D + D * D) + CLASSES * (D + 1) + HEAD + 2 * CLASSES,
    InfLoRA(rank=2): BLOCKS * (TASKS * 2 * (D + 2 * D) + D * D),
    SDLoRA(rank=2): BLOCKS * 2 * TASKS * (2 * (D + D) + 1),
    MoRA(rank=2): BLOCKS * TASKS * 2 * (3 * (D + D) + (D + D) + 2 * (D + HIDDEN)),
    CoSO(rank=4, sketch=6): BLOCKS * (D * D + D * (4 + 6) + 4 * D),
    SEMA(rank=4, expandable=2, hidden=8, window=10): ADAPTER // BLOCKS
    + 2 * TASKS * (ADAPTER // BLOCKS + (D + 1) + (2 * D * 8 + 8 + D) + 10 + 1)
    + 2 * (2 * D * 8 + 8 + D),
    MultiLane(selectors=2, prompts=3, blocks=2, multi_label=False): TASKS * (2 * D + 2 * 2 * 3 * D) + CLASSES,
}


@pytest.mark.parametrize("method", SIZES, ids=lambda method: type(method).__name__)
def test_numbers_kept_are_those_of_the_page(method: Any) -> None:
    module: Any = attached(PLAIN, method)
    (part,) = module.continual.parts.values()
    kept = sum(value.numel() for value in part.state_dict().values())
    assert SIZES[method] <= kept <= SIZES[method] + FEW
