"""HLOP: the run typed out by hand, fine-tuning without directions, and answers that later steps leave alone."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.callbacks import HLOP, ContinualCallback
from lightning_cl.callbacks.gradients.hlop import count_of

from ..by_hand import ByHand, assert_close, assert_differs, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")
METHOD = {"first": 0.3, "more": 0.2, "rate": 0.5, "inertia": 0.5, "iterations": 3}


def test_without_directions_it_is_fine_tuning():
    assert_fine_tuning(HLOP(first=0.0, more=0.0))


class Hand(ByHand):
    """The rule for each batch, and steps without a component in what earlier tasks learned."""

    def __init__(self, net, starts):
        self.known, self.starts = torch.zeros(16, 0).double(), starts
        self.rows, self.momentum = starts[0].double().clone(), torch.zeros_like(starts[0]).double()
        super().__init__(net)

    def loss(self, x, y):
        loss, x = super().loss(x, y), x.flatten(1)
        x = x / (x**2).sum(1).mean() ** 0.5
        for _ in range(3):
            update = torch.zeros_like(self.rows)
            for row in x:
                out = self.rows @ row
                back = self.known @ (self.known.T @ row) + self.rows.T @ out
                update += torch.outer(out, row - back) / len(x)
            self.momentum = 0.5 * self.momentum + 0.5 * update
            self.rows = self.rows + 0.5 * self.momentum
        return loss

    def stepped(self, before):
        if self.task:
            layer = self.net.body[1]
            step = layer.weight - before["body.1.weight"]
            with torch.no_grad():
                layer.weight.copy_(before["body.1.weight"] + step - step @ self.known @ self.known.T)
                layer.bias.copy_(before["body.1.bias"])

    def end(self, x, y):
        new = self.rows.T - self.known @ (self.known.T @ self.rows.T)
        self.known = torch.cat([self.known, torch.linalg.qr(new).Q], 1)
        if self.task < 2:
            self.rows = self.starts[self.task + 1].double().clone()
            self.momentum = torch.zeros_like(self.rows)


class Kept(ContinualCallback):
    """The random lateral weights of every task, as the method drew them."""

    def __init__(self):
        self.starts = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        memory = pl_module.continual.parts["hlop"].memory("body.1")
        if len(self.starts) <= trainer.datamodule.task_index:
            self.starts.append(memory.lateral[: memory.learning.value].clone())


@pytest.fixture(scope="module")
def finished():
    kept = Kept()
    return run(HLOP(**METHOD), callbacks=[kept]), kept.starts


def test_the_run_typed_out(finished):
    net, starts = finished
    assert [len(rows) for rows in starts] == [5, 3, 3]  # of 16 inputs
    hand = Hand(net, starts)
    assert_close(net, hand)
    memory = net.continual.parts["hlop"].memory("body.1")
    torch.testing.assert_close(memory.basis, hand.known, rtol=1e-9, atol=1e-9)
    assert_differs(net, run(HLOP(first=0.0)))


def test_steps_stay_outside_of_what_was_learned(finished):
    net, _ = finished
    before, after = net.ends[1]["body.1.weight"], net.ends[2]["body.1.weight"]
    basis = net.continual.parts["hlop"].memory("body.1").basis[:, :8]  # of two tasks
    assert float((after - before).abs().max()) > 1e-3
    assert float(((after - before) @ basis).abs().max()) < 1e-9
    assert torch.equal(net.ends[0]["body.1.bias"], weights(net)["body.1.bias"])


@pytest.mark.parametrize(("share", "width", "expected"), [(0.0, 50, 0), (0.01, 50, 1), (0.18, 50, 9), (1.0, 50, 50)])
def test_shares_of_a_width(share, width, expected):
    assert count_of(share, width) == expected


@pytest.mark.parametrize("bad", [{"first": 1.5}, {"rate": 0.0}, {"iterations": 0}, {"inertia": -0.1}])
def test_arguments_are_checked(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"`{name}` is"):
        HLOP(**bad)
