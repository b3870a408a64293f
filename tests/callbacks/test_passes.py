"""How often a batch passes the network in a training step: once more for a teacher, and not before there is one."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_cl.callbacks import (
    DER,
    EBLL,
    EWC,
    LUCIR,
    MAS,
    WA,
    DERPlusPlus,
    FeatureDistillation,
    LwF,
    LwFMC,
    RWalk,
    SynapticIntelligence,
)

from .by_hand import TASKS, Net, run, start

pytestmark = pytest.mark.filterwarnings("ignore")


class Counting(Net):
    """Counts the passes of every step, up to its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(start())
        self.passes, self.steps = 0, list[list[int]]()
        self.body.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.passes += 1

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        self.steps.append([])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.passes = 0

    def on_before_backward(self, loss: Any) -> None:
        self.steps[-1].append(self.passes)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *((method, 0) for method in (EWC(), MAS(), RWalk(), SynapticIntelligence())),
        *((method, 1) for method in (LwF(), LwF(per_task=True), LwFMC(), EBLL(steps=2), FeatureDistillation(), WA())),
        (LUCIR(), 1),
        (DER(12, 5), 1),
        (DERPlusPlus(12, 5), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_step_costs_what_its_page_says(method: Any, more: int) -> None:
    net = run(method, net=Counting())
    first, *later = net.steps
    assert len(later) == TASKS - 1
    assert {passes for steps in later for passes in steps} == {1 + more}
    remembered = isinstance(method, DER)  # from the second step on
    assert set(first) == ({1, 1 + more} if remembered else {1})
