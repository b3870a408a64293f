"""SEMA: where and when adapters are added, and what stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import train
from torch import Tensor

from lightning_cl.callbacks import SEMA, ContinualCallback
from lightning_cl.datamodules import SiBlurry

from .watching import Watch

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {**SEMA.small, "descriptor_epochs": 2}


def counts(state: dict[str, Tensor]) -> list[int]:
    return [int(state[f"continual.parts.sema._counts.{layer}.saved"]) for layer in range(2)]


def stacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """By layer and tensor, with a slot for each adapter."""
    part = "continual.parts.sema."
    found = {name: value for name, value in state.items() if name.startswith((f"{part}layers.", f"{part}descriptors."))}
    return {name.removeprefix(part): value for name, value in found.items() if not name.endswith("velocity")}


def test_below_any_distance_each_layer_grows_once_a_task_and_old_adapters_stay(tmp_path: Any) -> None:
    """Two layers in two epochs: the earlier one grows in the first part, the later one in the second."""
    watch = Watch()
    train(PLAIN, SEMA(**SMALL), tmp_path, callbacks=[watch], stream_options={"epochs_per_task": 2})
    assert [counts(state) for state in watch.ends] == [[1, 1], [2, 2], [3, 3]]
    assert [counts(state) for state in watch.starts] == [[1, 1], [2, 1], [3, 2]]
    for task in (1, 2):
        before, after = stacked(watch.ends[task - 1]), stacked(watch.ends[task])
        assert all(torch.equal(before[name][:task], after[name][:task]) for name in before)
        assert all(not torch.equal(before[name][task], after[name][task]) for name in before if "up" in name)
        assert all(torch.equal(before[name][task + 1 :], after[name][task + 1 :]) for name in before)
        recorded = [after[f"descriptors.{layer}.recorded"].tolist() for layer in range(2)]
        assert recorded == [[2 * 27] * (task + 1) + [0] * (2 - task)] * 2  # two epochs over the task's samples


def test_above_any_distance_only_the_head_learns_after_the_first_task(tmp_path: Any) -> None:
    watch = Watch()
    method = SEMA(**{**SMALL, "threshold": float("inf")})
    train(PLAIN, method, tmp_path, callbacks=[watch], stream_options={"epochs_per_task": 2})
    first, last = watch.ends[0], watch.ends[2]
    moved = {name for name, value in last.items() if not torch.equal(value, first[name])}
    assert {name for name in moved if not name.startswith("continual.")} == {"net.head.weight", "net.head.bias"}
    assert not any(name.endswith(tuple(stacked(last))) for name in moved)
    assert counts(last) == [1, 1]


class Steps(ContinualCallback):
    """After every step the task, and how many adapters the first layer has, and their output matrices."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        part = pl_module.continual.parts["sema"]
        up = part.banks[0].up.detach().clone()
        self.seen.append((trainer.datamodule.task_index, part.counts[0].value, up))


def test_a_shift_within_an_online_stream_adds_adapters_that_learn_at_once_and_alone(tmp_path: Any) -> None:
    steps, options = Steps(), {"scenario": SiBlurry(3, seed=4), "epochs_per_task": 1, "batch_size": 4}
    method = SEMA(**{**SMALL, "window": 20})  # a record is full when the task's classes have all arrived
    train(PLAIN, method, tmp_path, callbacks=[steps], stream_options=options)
    assert [count for _, count, _ in steps.seen] == sorted(count for _, count, _ in steps.seen)
    assert steps.seen[-1][1] == 3  # as many as there is room for
    grown = next(index for index, (_, count, _) in enumerate(steps.seen) if count == 2)
    task, _, before = steps.seen[grown]
    within = [up for of, count, up in steps.seen[grown + 1 :] if of == task and count == 2]
    assert within  # it was no boundary
    for up in within:
        assert torch.equal(up[0], before[0])
        assert not torch.equal(up[1], before[1])
        assert torch.equal(up[2], before[2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SEMA(expandable=0), "`expandable` is 0; give at least 1"),
        (lambda: SEMA(window=2), "`window` is 2; give at least 3"),
        (lambda: SEMA(descriptor_lr=0.0), "`descriptor_lr` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
