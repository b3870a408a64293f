"""What is put into a frozen backbone changes none of its answers before it has learned, by no bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.methods import METHODS, make
from conformance.modules import PLAIN
from conformance.runs import attached
from lightning.pytorch import seed_everything

pytestmark = pytest.mark.filterwarnings("ignore")
#: Prompts that begin with random rows, and methods whose answers are not the head's (their own tests compare features).
OTHERS = {"DualPrompt", "L2P", "MVP", "MultiLane", "OnePrompt", "APER", "EAR", "EASE", "ExpertGate"}
ADAPTING = [m for m in METHODS if m.adapts_backbone and m.family == "vit" and m.__name__ not in OTHERS]


@pytest.mark.parametrize("method", ADAPTING, ids=lambda m: m.__name__)
def test_they_are_those_of_the_plain_network(method: Any) -> None:
    module, images = attached(PLAIN, make(method)), torch.rand(5, 1, 16, 16)
    seed_everything(0, verbose=False)
    assert torch.equal(module.eval()(images), PLAIN.build("adamw", 0.0).eval()(images))
