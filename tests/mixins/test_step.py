"""A `validation_step` that calls `training_step` is an evaluation: methods add nothing, and it changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from callbacks.replay.replay_runs import DRAWN, MEMORY, Net, fit, make_stream, parts, result
from conformance.modules import tiny_vit
from nn.replay.loops import assert_same_state
from torch import nn

from lightning_cl.callbacks import APER, CODAPrompt, DERPlusPlus, PrototypeClassifier, VirtualOutlierRegularizer

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = {
    "memory": lambda: [DERPlusPlus(memory_size=MEMORY, batch_size=DRAWN)],
    "means": lambda: [PrototypeClassifier()],
    "adapters": lambda: [APER(**APER.small)],
    "own step": lambda: [
        CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1)),
        VirtualOutlierRegularizer(neighbours=10, boundary_points=10, draws=40, per_class=10),
    ],
}


class Apart(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, labels = parts(batch)
        self.log("val_loss", nn.functional.cross_entropy(self(images), labels))


class Shared(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))


@pytest.mark.parametrize("kind", METHODS)
def test_a_validation_by_the_training_step_is_a_validation(kind: str) -> None:
    runs = []
    for case in (Apart, Shared):
        torch.manual_seed(0)
        ended = fit(*METHODS[kind](), module=case(tiny_vit()), stream=make_stream(online=False))
        runs.append({**result(ended), "val_loss": ended.callback_metrics["val_loss"]})
    assert_same_state(*runs)
