"""PFNR: how many weights a mask has, what stays, and what earlier tasks answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import PFNR, ContinualCallback
from lightning_cl.nn.scored_weights import best_scored

from ..by_hand import Net, make_stream, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("count", "sparsity", "on"), [(101, 0.5, 51), (101, 0.0, 101), (101, 1.0, 1), (12, 0.3, 9)])
def test_the_density_is_exact(count: int, sparsity: float, on: int) -> None:
    scores = torch.randn(count, generator=torch.Generator().manual_seed(0))
    mask = best_scored(scores, sparsity)
    assert int(mask.sum()) == on
    assert torch.equal(mask.nonzero().flatten(), scores.abs().argsort(descending=True)[:on].sort().values)


class Decayed(Net):
    """Under AdamW with weight decay."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__(lr)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 9), nn.Tanh())

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)


class Watch(ContinualCallback):
    """Weights, masks and answers of all finished tasks at every task's end."""

    def __init__(self) -> None:
        self.images = torch.rand(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.states: list[dict[str, Tensor]] = []
        self.masks: list[dict[str, Tensor]] = []
        self.answers: list[list[Tensor]] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        part = pl_module.continual.parts["pfnr"]
        self.states.append(weights(pl_module))
        self.masks.append({name: part.bits.mask(name, task.index) for name in part.layers})
        pl_module.eval()
        answers = []
        for index in range(task.index + 1):
            pl_module.continual.task = index
            answers.append(pl_module(self.images)[:, 2 * index : 2 * index + 2].detach())
        pl_module.continual.task = None
        pl_module.train()
        self.answers.append(answers)


@pytest.fixture(scope="module")
def watch() -> Watch:
    torch.manual_seed(0)
    found = Watch()
    run(PFNR(sparsity=0.6), callbacks=[found], net=Decayed().double(), stream=make_stream(task_identity=True))
    return found


def test_earlier_answers_stay_bit_for_bit(watch: Watch) -> None:
    for task in (1, 2):
        for before, after in zip(watch.answers[task - 1], watch.answers[task], strict=False):
            assert torch.equal(before, after)


def test_used_weights_stay_and_are_used_again_and_free_ones_learn(watch: Watch) -> None:
    for name in ("body.1", "body.3"):
        used = torch.zeros_like(watch.masks[0][name])
        for task in (1, 2):
            used |= watch.masks[task - 1][name]
            before, after = (watch.states[i][f"{name}.weight"] for i in (task - 1, task))
            assert torch.equal(before[used], after[used])
            assert bool((before != after)[~used].all())
            assert bool((watch.masks[task][name] & used).any())
    assert torch.equal(watch.states[0]["body.1.bias"], watch.states[2]["body.1.bias"])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`sparsity` is 1\.5; give a number in \[0, 1\]"):
        PFNR(1.5)
