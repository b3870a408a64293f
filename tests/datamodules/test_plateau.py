"""A `ReduceLROnPlateau` counts over the whole stream, or in each task anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tiny_stream import TinyModule, make_stream, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")


class OnPlateau(TinyModule):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.999)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ("stream", [0.1, 0.1, 0.05, 0.025, 0.0125, 0.00625]),
        ("task", [0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_a_plateau_counts_over_the_stream_or_each_task_anew(over, expected):
    stream = make_stream(epochs_per_task=2, batch_size=99, reduce_on_plateau=over)
    make_trainer(callbacks=[rates := Rates()]).fit(OnPlateau(), datamodule=stream)
    assert rates.seen == pytest.approx(expected)  # the first value is never worse, so its epoch is no plateau


def test_a_plateau_in_each_task_lowers_the_rate_within_it():
    stream = make_stream(epochs_per_task=3, batch_size=99, reduce_on_plateau="task")
    make_trainer(callbacks=[rates := Rates()]).fit(OnPlateau(), datamodule=stream)
    assert rates.seen == pytest.approx([0.1, 0.1, 0.05] * 3)


def test_an_unknown_reach_of_the_plateau_is_refused():
    with pytest.raises(ValueError, match=r'`reduce_on_plateau` is "epoch"|`reduce_on_plateau` is \'epoch\''):
        make_stream(reduce_on_plateau="epoch")
