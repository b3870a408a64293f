"""A `training_step` that returns nothing, before it calls the head, leaves its batch out: of training and of memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_cl.callbacks import (
    AGEM,
    GEM,
    WA,
    DERPlusPlus,
    ExperienceReplay,
    FeatureDistillation,
    LwF,
    VirtualOutlierRegularizer,
)

from .by_hand import Net, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = {
    "LwF": lambda: LwF(),
    "WA": lambda: WA(),
    "features": lambda: FeatureDistillation(),
    "DER++": lambda: DERPlusPlus(40, 8),
    "A-GEM": lambda: AGEM(40, 8),
    "GEM": lambda: GEM(40),
}
LEFT_OUT = (0, 1)  # batches of every epoch; the last is trained on


class LeavingOut(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        return None if batch_idx in LEFT_OUT else super().training_step(batch, batch_idx)


class Moves(Callback):
    """Whether the weights moved in a step, in order."""

    def __init__(self) -> None:
        self.moved: list[bool] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.before = weights(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        now = weights(pl_module)
        self.moved.append(any(not torch.equal(now[name], value) for name, value in self.before.items()))


def fit(method: Any) -> tuple[Any, Moves]:
    net, moves = LeavingOut(), Moves()
    net.load_state_dict(start())
    return run(method, net=net, callbacks=[moves]), moves


@pytest.mark.parametrize("name", METHODS)
def test_a_step_that_is_left_out_moves_nothing(name: str) -> None:
    net, moves = fit(METHODS[name]())
    assert moves.moved == [index not in LEFT_OUT for _ in range(6) for index in range(3)]
    assert all(bool(value.isfinite().all()) for value in weights(net).values())


@pytest.mark.parametrize("name", ["DER++", "A-GEM", "GEM"])
def test_its_samples_are_not_remembered_without_what_is_kept_beside_them(name: str) -> None:
    net, _ = fit(METHODS[name]())
    stream, memory = net.trainer.datamodule, net.continual.memory
    held = memory.buffer.read((memory.buffer.labels >= 0).nonzero().flatten())
    first = [batches[0] for batches in net.tasks]  # the one that is trained on in the epoch that is remembered
    assert len(held) == sum(len(labels) for _, labels in first)
    remembered = stream.source.train_labels[held].sort().values
    assert torch.equal(remembered, torch.cat([labels for _, labels in first]).sort().values)


def test_replayed_samples_are_remembered_as_ever() -> None:
    net, _ = fit(ExperienceReplay(60, 8))
    assert len(net.continual.memory.buffer) == 60


@pytest.mark.parametrize("name", ["DER++", "A-GEM", "GEM"])
def test_steps_that_another_method_makes_are_not_remembered(name: str) -> None:
    outliers = VirtualOutlierRegularizer(outlier_epochs=2, **VirtualOutlierRegularizer.small)
    net = run(METHODS[name](), callbacks=[outliers])
    assert len(net.continual.memory.buffer) == 0
