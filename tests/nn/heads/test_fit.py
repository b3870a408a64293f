"""A head that is fitted after the epochs, against a plain loop, and under two processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN
from conformance.runs import in_forked_processes, train
from torch import nn

from lightning_cl.callbacks import ContinualMethod
from lightning_cl.nn import fit_head
from lightning_cl.training import MethodModule


def samples(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(20, 4, generator=generator), torch.randint(3, (20,), generator=generator)


def head() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(4, 3)


def adam(layer: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.01)


@pytest.mark.parametrize("drawn", [False, True], ids=["fixed", "drawn anew"])
def test_it_is_the_plain_loop(drawn: bool) -> None:
    mine, theirs = head(), head()
    turns = iter(range(3))
    given = (lambda: samples(next(turns))) if drawn else samples()
    optimizer = adam(mine)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    fit_head(
        mine.forward,
        given,
        optimizer,
        torch.Generator().manual_seed(7),
        epochs=3,
        batch_size=8,
        schedule=schedule,
        loss=lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    )
    generator, optimizer = torch.Generator().manual_seed(7), adam(theirs)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5**epoch
        x, y = samples(epoch if drawn else 0)
        order = torch.randperm(20, generator=generator)
        for start in (0, 8, 16):
            rows = order[start : start + 8]
            optimizer.zero_grad()
            F.cross_entropy(theirs(x[rows]), y[rows], label_smoothing=0.1).backward()
            optimizer.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.grad is None
    assert not torch.equal(mine.weight, head().weight)


def test_scalars_are_fitted_and_nothing_else_gets_a_gradient() -> None:
    fixed, pair = head(), torch.tensor([1.0, 0.0], requires_grad=True)
    x, y = samples()
    before = F.cross_entropy(fixed(x), y)
    with torch.no_grad():  # as at a task's end
        fit_head(
            lambda rows: pair[0] * fixed(rows) + pair[1] * torch.tensor([0.0, 0.0, 1.0]),
            (x, y),
            torch.optim.SGD([pair], lr=0.1),
            torch.Generator(),
            epochs=20,
            batch_size=20,
        )
    assert fixed.weight.grad is None
    assert pair.grad is None
    with torch.no_grad():
        assert F.cross_entropy(pair[0] * fixed(x) + pair[1] * torch.tensor([0.0, 0.0, 1.0]), y) < before


def test_it_leaves_no_trace_in_the_generators_and_dropout_can_be_repeated() -> None:
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layer, before = head(), torch.random.get_rng_state()
        fit_head(
            nn.Sequential(nn.Dropout(0.5), layer), samples(), adam(layer), torch.Generator().manual_seed(3), epochs=2,
            batch_size=7,
        )  # fmt: skip
        assert torch.equal(torch.random.get_rng_state(), before)
        results.append(layer.weight.detach())
    assert torch.equal(*results)


class FittedHead(MethodModule):
    """A second head, fitted on the features of every task when it has ended."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.second = nn.Linear(module.continual_head.in_features, 6).double()
        self.second.requires_grad_(False)

    def end_task(self, module: Any, data: Any) -> None:
        features, labels, _ = data.all_features()
        self.second.requires_grad_(True)
        optimizer = torch.optim.SGD(self.second.parameters(), lr=0.5)
        generator = torch.Generator().manual_seed(data.task.index)
        fit_head(self.second.forward, (features.double(), labels), optimizer, generator, epochs=2, batch_size=8)
        self.second.requires_grad_(False)


@dataclass(eq=False)
class Fitting(ContinualMethod):
    state_key: ClassVar[str] = "tests.Fitting"

    def build(self, pl_module: Any, info: Any) -> FittedHead:
        return FittedHead(pl_module)


def test_two_processes_fit_the_head_of_one(tmp_path) -> None:
    options = {"optimizer": "sgd", "precision": "64-true"}

    def rank() -> None:
        run = train(PLAIN, Fitting(), tmp_path, **options, strategy="ddp", devices=2)
        torch.save(run.module.continual.parts["fitting"].second.weight, tmp_path / f"{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    run = train(PLAIN, Fitting(), tmp_path, **options)
    expected = run.module.continual.parts["fitting"].second.weight
    first, second = (torch.load(tmp_path / f"{i}.pt") for i in (0, 1))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected, rtol=1e-9, atol=1e-11)
    assert not torch.equal(expected, FittedHead(run.module).second.weight)
