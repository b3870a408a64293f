"""Runs of a method that gives every task weights of its own, on a small stream that tells the task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_cl.callbacks import ContinualCallback

from ..by_hand import Net, make_stream, run

IMAGES = torch.rand(11, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


class Mixed(Net):
    """A convolution, a batch norm, a residual of two layers, and an optimiser that moves what has no gradient."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten())
        self.up, self.down, self.norm = nn.Linear(64, 16), nn.Linear(16, 64), nn.LayerNorm(64)
        self.shift = nn.Parameter(torch.zeros(64))
        self.fc = nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x) + self.shift
        return self.fc(self.norm(h + self.down(torch.tanh(self.up(h)))))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)


@torch.no_grad()
def answers(module: Any, task: int, images: Tensor = IMAGES) -> Tensor:
    """``(B, 2)`` logits of the task's classes, as somebody predicts who names the task."""
    choice, mode = module.continual.choice, module.training
    before = (choice.told, choice.current, choice.named)
    module.eval().continual.task = task
    found = module(images).clone()
    choice.told, choice.current, choice.named = before
    module.train(mode)
    assert bool((found.argmax(1) // 2 == task).all())  # no other class can win
    return found[:, 2 * task : 2 * task + 2]


class Ends(ContinualCallback):
    """The answers for every task so far, in the evaluation of every task's end."""

    def __init__(self) -> None:
        self.answers: list[list[Tensor]] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.datamodule.task_ended:
            self.answers.append([answers(pl_module, task) for task in range(trainer.datamodule.task_index + 1)])


def told_run(method: Any, net: Any = None, callbacks: Any = (), **options: Any) -> tuple[Any, Ends]:
    """The module after a fit on a stream that tells the task, and what it answered on the way."""
    ends, stream = Ends(), make_stream(task_identity=True, **options)
    torch.manual_seed(0)
    module = run(method, net=Mixed() if net is None else net, callbacks=[*callbacks, ends], stream=stream)
    return module, ends


def assert_earlier_answers_stay(module: Any, ends: Ends) -> None:
    """Bit for bit, to the end of the stream and after it."""
    assert [len(row) for row in ends.answers] == [1, 2, 3]
    for task in range(3):
        for later in range(task, 3):
            assert torch.equal(ends.answers[later][task], ends.answers[task][task]), (task, later)
        assert torch.equal(answers(module, task), ends.answers[task][task])
