"""Learning rates of every step of a stream, and what they are a share of."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lightning_cl.callbacks import ContinualCallback, FineTuning, InfiniteSchedule, ReWarmReDecay
from lightning_cl.callbacks.learning_rates import set_rates
from lightning_cl.nn.schedules import warm_cosine

from .by_hand import LR, TASKS, Net, run

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 6  # of a task: three batches, two epochs


class Rates(ContinualCallback):
    """The rate of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.found += [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("fresh", [False, True])
def test_the_rate_rises_and_falls_in_every_task(fresh: bool) -> None:
    rates = Rates()
    run(FineTuning(reset_optimizer=fresh), callbacks=[ReWarmReDecay(warmup=0.3, least=0.2, peak=0.5), rates])
    peaks = [1.0, 0.5, 0.5]
    assert rates.found == pytest.approx(
        [LR * warm_cosine(step, STEPS, 2, 0.2, peaks[task]) for task in range(TASKS) for step in range(STEPS)]
    )
    assert rates.found[STEPS] == pytest.approx(0.2 * LR)


def test_the_infinite_rate_is_constant_over_the_tasks() -> None:
    rates = Rates()
    schedule = InfiniteSchedule(warmup=0.34, cooldown=0.34, annealing=0.5, constant=0.5, least=0.1)
    run(FineTuning(), callbacks=[schedule, rates])
    shares = [rate / LR for rate in rates.found]
    assert shares[:5] == pytest.approx([0.1, 0.55, 1.0, 0.75, 0.5])
    assert shares[4:16] == pytest.approx([0.5] * 12)
    assert shares[16:] == pytest.approx([0.5 * 0.2 ** (1 / 3), 0.5 * 0.2 ** (2 / 3)])


def test_what_a_rate_is_a_share_of_is_in_the_checkpoint_of_the_optimiser() -> None:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": 2.0}, {"params": [torch.zeros(1)]}], lr=1.0)
    set_rates([optimizer], 0.5)
    set_rates([optimizer], 0.1)
    other = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}], lr=9.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    set_rates([other], 0.25)
    assert [group["lr"] for group in other.param_groups] == [0.5, 0.25]


def test_a_second_schedule_is_refused() -> None:
    class Scheduled(Net):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    with pytest.raises(ValueError, match="ReWarmReDecay sets the learning rate before every batch, but"):
        run(FineTuning(), callbacks=[ReWarmReDecay()], net=Scheduled().double())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`peak` is 2\.0; give a number in"):
        ReWarmReDecay(peak=2.0)
    with pytest.raises(ValueError, match=r"`least` is 0\.6; give a number above 0, at most `constant`"):
        InfiniteSchedule(least=0.6)
