"""Dynamic sparse training: counts, what stays, how connections change, and earlier tasks' answers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import ContinualCallback, DynamicSparseTraining
from lightning_cl.nn.bits import unpack_bits
from lightning_cl.nn.sparse_topology import death_rate

from .task_runs import answers, assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")


class Watch(ContinualCallback):
    """Masks, weights, both moments, what is frozen, and the gradients of backward, after every step."""

    def __init__(self) -> None:
        self.steps: list[list[dict[str, Any]]] = []
        self.gradients: dict[str, Tensor] = {}

    def on_task_start(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.steps.append([])

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        layers = pl_module.continual.parts["dynamicsparsetraining"].layers
        self.gradients = {name: pl_module.get_submodule(name).weight.grad.clone() for name in layers}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        part = pl_module.continual.parts["dynamicsparsetraining"]
        layers = {}
        for name, active in part.active.items():
            weight = pl_module.get_submodule(name).weight
            moments = [trainer.optimizers[0].state[weight][key] for key in ("exp_avg", "exp_avg_sq")]
            seen = (active, weight, torch.stack(moments), part.frozen[name], self.gradients[name])
            layers[name] = [t.detach().clone() for t in seen]
        self.steps[-1].append(layers)


def watched(every: int = 2, **options: Any) -> tuple[Any, Any, Watch]:
    watch = Watch()
    module, ends = told_run(DynamicSparseTraining(0.3, every, **options), callbacks=[watch])
    return module, ends, watch


@pytest.fixture(scope="module")
def run() -> tuple[Any, Any, Watch]:
    return watched()


def test_earlier_tasks_answer_as_before(run: tuple[Any, Any, Watch]) -> None:
    module, ends, _ = run
    assert_earlier_answers_stay(module, ends)


def test_the_number_of_connections_stays_and_they_change_at_the_rate(run: tuple[Any, Any, Watch]) -> None:
    """A task has 6 steps, with changes after the second and the fourth."""
    for task in run[2].steps:
        for step, (before, after) in enumerate(pairwise(task), start=2):
            for name in before:
                old, new = before[name][0], after[name][0]
                assert int(old.sum()) == int(new.sum()) == int(0.3 * old.numel())
                due = step in (2, 4)
                died = int((old & ~new).sum())
                assert died == (int(death_rate(step, 6) * int(old.sum())) if due else 0)


def test_tasks_draw_anew(run: tuple[Any, Any, Watch]) -> None:
    first, second, third = (task[0] for task in run[2].steps)
    for name, (active, *_) in first.items():
        assert not torch.equal(active, second[name][0])
        assert not torch.equal(second[name][0], third[name][0])


def test_what_grows_and_dies_is_zero_and_without_momentum(run: tuple[Any, Any, Watch]) -> None:
    seen = 0
    for task in run[2].steps:
        for before, after in pairwise(task):
            for name in before:
                active, weight, moments, frozen, _ = after[name]
                changed = before[name][0] != active
                seen += int(changed.sum())
                assert not weight[changed & ~frozen].any()
                assert not moments[:, changed].any()
                kept = active & ~changed & ~frozen
                assert not kept.any() or bool(moments[:, kept].any())
    assert seen > 10


def test_connections_of_earlier_tasks_do_not_move_and_the_tasks_own_do(run: tuple[Any, Any, Watch]) -> None:
    """Under AdamW with weight decay."""
    for number, task in enumerate(run[2].steps):
        for before, after in pairwise(task):
            for name in before:
                active, weight, moments, frozen, _ = before[name]
                assert bool(frozen.any()) == (number > 0)
                assert not moments[:, ~active | frozen].any()
                assert torch.equal(after[name][1][frozen], weight[frozen])
                free = active & ~frozen & after[name][0]
                assert not free.any() or not torch.equal(after[name][1][free], weight[free])


def test_a_task_answers_with_its_connections_alone(run: tuple[Any, Any, Watch]) -> None:
    module, _, _ = run
    part = module.continual.parts["dynamicsparsetraining"]
    before = answers(module, 1)
    kept: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in part.layers:
            weight = module.get_submodule(name).weight
            kept[name] = weight.clone()
            mask = unpack_bits(part.bits.get_buffer(name.replace(".", "/"))[1], weight.shape)
            weight[~mask] = 7.0
        assert torch.equal(answers(module, 1), before)
        for name, weight in kept.items():
            module.get_submodule(name).weight.copy_(weight)


def test_the_largest_gradients_grow_and_erk_shares_the_density_out() -> None:
    module, ends, watch = watched(growth="gradient", layout="erk")
    assert_earlier_answers_stay(module, ends)
    masks = [active for active, *_ in watch.steps[0][0].values()]
    assert sum(int(mask.sum()) for mask in masks) == pytest.approx(0.3 * sum(mask.numel() for mask in masks), abs=4)
    shares = [float(mask.double().mean()) for mask in masks]
    assert max(shares) - min(shares) > 0.1
    seen = 0
    for task in watch.steps:
        for before, after in pairwise(task):
            for name, (old, *_) in before.items():
                grown, size = after[name][0] & ~old, after[name][4].abs()
                if grown.any():
                    asleep = ~old & ~grown
                    assert float(size[grown].min()) >= float(size[asleep].max())
                    seen += int(grown.sum())
    assert seen > 10


def test_what_was_active_before_does_not_grow_again() -> None:
    module, ends, watch = watched(every=1, growth="unfired")
    assert_earlier_answers_stay(module, ends)
    seen = 0
    for task in watch.steps:
        fired = {name: layer[0] for name, layer in task[0].items()}
        for before, after in pairwise(task):
            for name, (old, *_) in before.items():
                grown = after[name][0] & ~old
                seen += int(grown.sum())
                assert not (grown & fired[name]).any()
                fired[name] = fired[name] | grown
    assert seen > 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"density": 1.5}, r"`density` is 1.5; give a number in \[0, 1\]"),
        ({"every": 0}, "`every` is 0; give at least 1"),
        ({"growth": "best"}, "`growth` is 'best'; give one of 'random', 'gradient', 'unfired'"),
        ({"layout": "flat"}, "`layout` is 'flat'; give one of 'uniform', 'erk'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DynamicSparseTraining(**arguments)
