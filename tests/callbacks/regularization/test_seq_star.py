"""SEQ*: what moves in the warm-up, what stays afterwards, and what is left of fine-tuning."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import ContinualCallback, SEQStar

from ..by_hand import SIZE, Net, assert_fine_tuning, make_online, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Decayed(Net):
    """With dropout before the head and batch norm, under AdamW with weight decay."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.5))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)


class Watch(ContinualCallback):
    """Weights and statistics after every epoch and at every task's start; whether dropout drew in the last step."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Tensor]] = []
        self.heads: list[Tensor] = []

    def state(self, module: Any) -> dict[str, Tensor]:
        norm = module.body[2]
        return {**weights(module), "mean": norm.running_mean.clone(), "count": norm.num_batches_tracked.clone()}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(self.state(pl_module))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(self.state(pl_module))


@pytest.fixture(scope="module")
def epochs() -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    watch = Watch()
    run(SEQStar(warmup_epochs=1), callbacks=[watch], net=Decayed())
    return watch.epochs


def names_that_differ(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_everything_learns_in_the_warm_up_alone(epochs: list[dict[str, Tensor]]) -> None:
    assert len(epochs) == 7  # the start, and three tasks of two epochs
    assert names_that_differ(*epochs[:2]) == set(epochs[0])
    for before, after in pairwise(epochs[1:]):
        assert names_that_differ(before, after) == {"fc.weight", "fc.bias"}


def test_rows_of_finished_classes_stay_and_those_of_later_ones_compete(epochs: list[dict[str, Tensor]]) -> None:
    for task in (1, 2):
        before, after = epochs[2 * task], epochs[2 * task + 2]
        moved = (before["fc.weight"] != after["fc.weight"]).any(dim=1)
        assert moved.tolist() == [False] * task * SIZE + [True] * (len(moved) - task * SIZE)


def test_a_warm_up_longer_than_the_first_task_ends_with_it() -> None:
    watch = Watch()
    run(SEQStar(warmup_epochs=9), callbacks=[watch], net=Decayed())
    assert "body.1.weight" in names_that_differ(*watch.epochs[1:3])
    assert "body.1.weight" not in names_that_differ(*watch.epochs[2:4])


def test_with_its_steps_left_out_it_is_fine_tuning() -> None:
    class Warm(SEQStar):
        def build(self, pl_module: Any, info: Any) -> Any:
            part = super().build(pl_module, info)
            part.frozen = never
            return part

    assert_fine_tuning(Warm(freeze_old_rows=False))


def never(module: Any) -> bool:
    return False


def test_a_stream_without_boundaries_is_refused() -> None:
    with pytest.raises(ValueError, match="SEQStar freezes the encoder and finished classes when a task ends"):
        run(SEQStar(), stream=make_online())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`warmup_epochs` is -1; give at least 0"):
        SEQStar(-1)
