"""Updates a batch: none in a warm-up, several after it; the ratio by the specification's numbers; the memory's part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import AdaptiveReplayRatio, ExperienceReplay, WarmupAtShift
from lightning_cl.callbacks.plasticity.adaptive_replay_ratio import is_stable
from lightning_cl.nn.replay import ReplayBuffer
from lightning_cl.training.update_schedule import updates_of

from ..by_hand import Net, assert_fine_tuning, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("ratio", "total"), [(0.5, 50), (1.0, 100), (2.0, 200), (1.5, 150)])
def test_a_ratio_gives_its_updates_over_100_batches(ratio: float, total: int) -> None:
    found = [updates_of(number, ratio) for number in range(100)]
    assert sum(found) == total
    assert max(found) - min(found) <= 1


def test_the_switch_comes_when_the_active_units_are_stable() -> None:
    assert not is_stable(float("nan"), 0.41, 1e-3)
    assert not is_stable(0.41, 0.405, 1e-3)
    assert is_stable(0.405, 0.4045, 1e-3)


def test_one_update_a_batch_is_fine_tuning() -> None:
    assert_fine_tuning(WarmupAtShift(0, 1))
    assert_fine_tuning(AdaptiveReplayRatio(1.0, 1.0))


class Counting(Net):
    """Notes the weights after every batch, and every step of its optimiser."""

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.steps: list[int] = []
        self.after: list[dict[str, Tensor]] = []
        self.held: list[list[int]] = []

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        optimizer.register_step_post_hook(lambda *_: self.steps.append(len(self.after)))
        return optimizer

    def on_train_batch_end(self, *_: Any) -> None:
        self.after.append(weights(self))


def counted(*callbacks: Any) -> Counting:
    net = Counting()
    net.load_state_dict(start())
    return run(callbacks[0], net=net, callbacks=callbacks[1:])


def test_nothing_moves_in_a_warm_up_and_then_a_batch_gets_several_updates() -> None:
    replay = ExperienceReplay(memory_size=20, batch_size=4)
    net = counted(WarmupAtShift(2, 3, retain=False), replay)
    each = 6  # batches of a task, in two epochs
    made = [net.steps.count(batch) for batch in range(3 * each)]
    assert made == [1] * each + [1, 1, 3, 3, 3, 3] * 2  # a step without gradients is called, and moves nothing
    for task in (1, 2):
        before, *warming = net.after[task * each - 1 : task * each + 2]
        assert all(torch.equal(before[name], after[name]) for after in warming for name in before)
        trained = net.after[task * each + 2]
        assert any(not torch.equal(before[name], trained[name]) for name in before)
    assert replay.memory is not None
    assert set(replay.memory.buffer.labels[replay.memory.buffer.used].tolist()) == {4, 5}  # of the last task alone


def test_the_ratio_switches_once_and_adds_updates() -> None:
    net = counted(
        AdaptiveReplayRatio(0.5, 2.0, tolerance=1.0, window=2), ExperienceReplay(memory_size=20, batch_size=4)
    )
    counter = net.continual.parts["adaptivereplayratio"]
    assert counter.switched_at.value == 8  # two windows of two updates, of every second batch
    made = [net.steps.count(batch) for batch in range(18)]
    assert made == [1] * 8 + [2] * 10
    for batch in (0, 2, 4, 6):
        before = start() if batch == 0 else net.after[batch - 1]
        assert all(torch.equal(before[name], net.after[batch][name]) for name in before)


def test_updates_on_a_memory_need_one() -> None:
    with pytest.raises(ValueError, match="put `ExperienceReplay`"):
        run(WarmupAtShift())
    with pytest.raises(ValueError, match="put `ExperienceReplay`"):
        run(AdaptiveReplayRatio())


def test_a_cleared_buffer_fills_like_a_fresh_one() -> None:
    buffer = ReplayBuffer(3)
    buffer.add(torch.arange(50), torch.arange(50))
    buffer.clear()
    assert len(buffer) == 0
    buffer.add(torch.arange(3), torch.tensor([7, 8, 9]))
    assert buffer.labels.tolist() == [7, 8, 9]
