"""SCR: a whole run against the loss typed out in loops, and the means that answer against the memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import SCR

from ..by_hand import CLASSES, ByHand, Net, assert_close, run, start

pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = {"least_area": 1.0, "flip": False, "jitter": 0.0, "gray": 0.0}  # views are the images themselves


class Remembering(Net):
    """Keeps the projection with which it begins."""

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        if not task.index:
            self.begun = [copy.deepcopy(self.continual.parts["scr"].project)]  # in a list: no part of the network


class SCRByHand(ByHand):
    """Two equal views of stream and memory, compared by a projection that learns beside the network."""

    def __init__(self, net: Remembering, draws: list[Any]) -> None:
        self.draws, self.first = list(draws), True
        self.project = net.begun[0]
        self.optimizer = torch.optim.SGD(self.project.parameters(), lr=net.lr, momentum=0.5)
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.first:
            drawn = self.draws.pop(0)
            x, y = torch.cat([x, drawn.inputs]), torch.cat([y, drawn.labels])
        self.first = False
        self.optimizer.zero_grad()
        u = F.normalize(self.project(self.net.body(x)), dim=1).repeat(2, 1)
        y, terms = y.repeat(2), []
        for i in range(len(u)):
            others = [j for j in range(len(u)) if j != i]
            below = torch.stack([(u[i] @ u[j] / 0.07).exp() for j in others]).sum().log()
            positives = [u[i] @ u[j] / 0.07 - below for j in others if y[j] == y[i]]
            terms.append(-torch.stack(positives).mean())
        return torch.stack(terms).mean() + 0.0 * self.net(x[:1]).sum()

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.optimizer.step()


def fitted(method: SCR) -> Any:
    net = Remembering(0.05)
    net.load_state_dict(start())
    return run(method, net=net)


def test_a_run_equals_the_formula_and_the_memory_answers(draws: list[Any]) -> None:
    method = SCR(30, 6, width=5, **PLAIN)
    net = fitted(method)
    hand = SCRByHand(net, draws)
    assert_close(net, hand)
    assert not hand.draws
    for name, weight in net.continual.parts["scr"].project.named_parameters():
        torch.testing.assert_close(weight, hand.project.get_parameter(name), rtol=1e-9, atol=1e-9)

    buffer = method.memory.buffer
    source = net.trainer.datamodule.source
    stream = net.trainer.datamodule
    x = stream.batch(buffer.read(buffer.used), "eval")[0].double()
    with torch.no_grad():
        u = F.normalize(net.body(x), dim=1)
        means = torch.stack([u[source.train_labels[buffer.read(buffer.used)] == c].mean(0) for c in range(CLASSES)])
        answers = net.eval()(x)
        expected = u @ F.normalize(means, dim=1).T
    torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-6)


def test_means_are_taken_anew_before_an_evaluation_only_after_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    part = fitted(SCR(30, 6, width=5)).continual.parts["scr"]
    taken: list[Any] = []
    monkeypatch.setattr(part, "_take_means", taken.append)
    module = part_owner(part)
    part.start_evaluation(module)
    assert not taken  # a task has just ended
    part.outdated.set(1)
    part.start_evaluation(module)
    assert len(taken) == 1


def part_owner(part: Any) -> Any:
    """What `start_evaluation` asks of a module: its stream's task."""
    stream = type("Stream", (), {"task": None})
    return type("Module", (), {"trainer": type("Trainer", (), {"datamodule": stream})})
