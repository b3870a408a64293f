"""FOSTER: the numbers of its specification, and a whole run against the formulas typed out."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import FOSTER, ExperienceReplay
from lightning_cl.nn.losses import effective_weights
from lightning_cl.training.phases import is_last_share

from ..by_hand import CLASSES, EACH, MOMENTUM, SIZE, TASKS, ByHand, Net, assert_close, assert_differs, run, start

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("beta", "expected"), [(0.96, (1.283699, 0.716301)), (0.97, (1.373432, 0.626568))])
def test_weights_of_the_worked_example(beta: float, expected: tuple[float, float]) -> None:
    assert effective_weights(torch.tensor([20, 500]), beta).tolist() == pytest.approx(expected, abs=1e-6)
    unseen = effective_weights(torch.tensor([20, 0, 500]), beta)
    assert unseen.tolist() == pytest.approx((expected[0], 0.0, expected[1]), abs=1e-6)


def test_the_compression_takes_the_last_steps() -> None:
    """Of 2 epochs of 5 steps the last 4; all but the first at most."""
    task = SimpleNamespace(epochs=2, first_epoch=3)
    places = [(epoch, batch) for epoch in (3, 4) for batch in range(5)]

    def due(share: float) -> list[bool]:
        trainers = [
            SimpleNamespace(
                datamodule=SimpleNamespace(task=task),
                num_training_batches=5,
                current_epoch=epoch,
                fit_loop=SimpleNamespace(batch_idx=batch),
            )
            for epoch, batch in places
        ]
        return [is_last_share(trainer, share) for trainer in trainers]

    assert due(0.4) == [False] * 6 + [True] * 4
    assert due(1.0) == [False] + [True] * 9
    assert due(0.0) == [False] * 10


class FosteredByHand(ByHand):
    """Three steps of boosting and three of compression in every task but the first."""

    def __init__(self, net: Any, strength: float = 0.25) -> None:
        self.strength, self.begun, self.count = strength, 0, 0
        self.tasks, self.lr = net.tasks, net.lr
        super().__init__(net, seen=True)

    def random(self, generator: torch.Generator, width: int, *shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-(width**-0.5), width**-0.5, generator=generator).double()

    def weights(self, beta: float) -> Tensor:
        counts = torch.tensor([1.0] * self.old.stop + [float(EACH)] * SIZE, dtype=torch.float64)
        found = (1 - beta) / (1 - beta**counts)
        return found / found.sum() * len(found)

    def begin(self) -> None:
        self.begun, self.count, generator = self.task, 0, torch.Generator().manual_seed(self.task)
        self.before = copy.deepcopy(self.net)
        self.column = self.net.fc.weight.detach().clone().requires_grad_()
        self.net.fc.weight.data = self.random(generator, 18, CLASSES, 9)
        self.branch = self.random(generator, 9, CLASSES, 10).requires_grad_()
        self.optimizer = torch.optim.SGD([self.column, self.branch], lr=self.lr, momentum=MOMENTUM)

    def compress(self) -> None:
        self.boosted, self.frozen = copy.deepcopy(self.net), self.column.detach().clone()
        self.net.load_state_dict(self.before.state_dict())
        for name, p in self.net.fc.named_parameters():  # classes to come keep their rows
            p.data[self.classes.stop :] = getattr(self.boosted.fc, name).data[self.classes.stop :]
        self.momentum = {name: torch.zeros_like(p) for name, p in self.net.named_parameters()}

    def both(self, net: Any, column: Tensor, x: Tensor) -> Tensor:
        return net(x) + self.before.body(x).detach() @ column.T

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.task:
            return self.cross_entropy(x, y)
        if self.begun != self.task:
            self.begin()
        self.count += 1
        if self.count == 4:
            self.compress()
        return self.boosting(x, y) if self.count < 4 else self.compression(x)

    def boosting(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        logits = self.both(self.net, self.column, x)[:, self.classes]
        loss = F.cross_entropy(logits / self.weights(0.96), y)
        own = (self.net.body(x) @ self.branch[:, :-1].T + self.branch[:, -1])[:, self.classes]
        loss = loss + F.cross_entropy(own, y)
        q, p = ((z[:, self.old] / 2).log_softmax(1) for z in (self.before(x).detach(), logits))
        return loss + self.strength * 4 * (q.exp() * (q - p)).sum(1).mean()

    def compression(self, x: Tensor) -> Tensor:
        q = (self.both(self.boosted, self.frozen, x).detach()[:, self.classes] / 2).softmax(1) * self.weights(0.97)
        q = q / q.sum(1, keepdim=True)
        return -(q * (self.net(x)[:, self.classes] / 2).log_softmax(1)).sum(1).mean()

    def stepped(self, before: dict[str, Tensor]) -> None:
        if not self.task:
            return
        if self.count < 4:
            kept = self.column.detach()[self.classes.stop :].clone()
            self.optimizer.step()
            self.column.data[self.classes.stop :] = kept
            return
        for name, p in self.net.named_parameters():  # the optimiser of the base has another momentum
            self.momentum[name] = MOMENTUM * self.momentum[name] + p.grad
            value = before[name] - self.lr * self.momentum[name]
            if name.startswith("fc"):
                value[self.classes.stop :] = before[name][self.classes.stop :]
            p.data.copy_(value)


class Watched(Net):
    """Remembers the batches of all steps, also of those that are not the user's."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.tasks[-1].append(tuple(tensor.clone() for tensor in batch))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])


@pytest.fixture(scope="module")
def fostered() -> Any:
    net = Watched().double()
    net.load_state_dict(start())
    return run(FOSTER(compress=0.5), net=net)


def test_a_run_is_that_of_the_formulas(fostered: Any) -> None:
    assert_close(fostered, FosteredByHand(fostered))
    assert_differs(fostered, FosteredByHand(fostered, strength=0.5).net)


def test_one_network_is_left_after_compression(fostered: Any) -> None:
    assert len(fostered.continual.parts["foster"].trunks) == 0
    x = torch.rand(3, 16, dtype=torch.float64)
    torch.testing.assert_close(fostered.eval()(x), F.linear(fostered.body(x), fostered.fc.weight, fostered.fc.bias))


def test_without_compression_networks_stay_side_by_side() -> None:
    net = run(FOSTER(compress=0.0))
    assert len(net.continual.parts["foster"].trunks) == TASKS - 1


def test_old_classes_share_the_memory() -> None:
    """12 slots for 4 old classes in the last task: 3 samples of each, and 10 of each new one."""
    net = run(FOSTER(), callbacks=[ExperienceReplay(memory_size=12, batch_size=4, policy="class_balanced")])
    expected = effective_weights(torch.tensor([3, 3, 3, 3, EACH, EACH]), 0.96)
    torch.testing.assert_close(net.continual.parts["foster"].balance[:, 0], expected)


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match="`beta`"):
        FOSTER(beta=1.0)
    with pytest.raises(ValueError, match="`compress`"):
        FOSTER(compress=1.5)
