"""Methods that write weights between steps leave what other methods keep for earlier tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.methods import make
from conformance.modules import PLAIN
from conformance.runs import train

from lightning_cl.callbacks import EASE, ContinualCallback, DormantReset, PackNet, ShrinkAndPerturb

from ..masks.task_runs import assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")
orders = pytest.mark.parametrize("first", [True, False], ids=["in front", "behind"])


@orders
def test_units_of_earlier_tasks_are_not_started_anew(first: bool) -> None:
    pair = [DormantReset(10.0, every=2), PackNet()][:: 1 if first else -1]
    module, ends = told_run(pair[0], callbacks=[pair[1]])
    assert_earlier_answers_stay(module, ends)
    assert module.continual.parts["dormantreset"].restarted.value > 0


class Slots(ContinualCallback):
    """The adapters of the first task at the end of every task."""

    def __init__(self) -> None:
        self.kept: list[list[torch.Tensor]] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.kept.append([p[0].detach().clone() for p in pl_module.continual.parts["ease"].adapters.parameters()])


@orders
def test_adapters_of_earlier_tasks_do_not_shrink(first: bool, tmp_path: Any) -> None:
    slots, pair = Slots(), [make(EASE), ShrinkAndPerturb(0.5, 0.1)][:: 1 if first else -1]
    options = {"epochs_per_task": 1}
    train(PLAIN, pair[0], tmp_path, callbacks=[pair[1], slots], limit_train_batches=1, stream_options=options)
    assert len(slots.kept) == 3
    for later in slots.kept[1:]:
        assert all(torch.equal(now, before) for now, before in zip(later, slots.kept[0], strict=True))
    assert any(bool(kept.any()) for kept in slots.kept[0])
