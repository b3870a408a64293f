"""HAT: gates of a task, gradients of used units, and that a task's answers stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import HAT, ContinualCallback

from ..by_hand import make_stream
from .task_runs import Mixed, answers, assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")


class Chain(Mixed):
    """A chain of which every layer's units are known."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 12), nn.Tanh(), nn.Linear(12, 9)
        )
        self.up = self.down = self.norm = nn.Identity()
        self.shift = nn.Parameter(torch.zeros(9))
        self.fc = nn.Linear(9, 6)

    def forward(self, x):
        return self.fc(self.body(x) + self.shift)


class Kept(ContinualCallback):
    """The weights at every task's end, and what finished tasks use by then."""

    def __init__(self):
        self.weights, self.used, self.scales = [], [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.scales.append(pl_module.continual.parts["hat"].scale)

    def on_validation_end(self, trainer, pl_module):
        if trainer.datamodule.task_ended:
            self.weights.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})
            self.used.append({name: a.clone() for name, a in pl_module.continual.parts["hat"].used.items()})


@pytest.fixture(scope="module")
def finished():
    torch.manual_seed(0)
    kept = Kept()
    return (*told_run(HAT(0.1, largest_scale=50), Chain(), [kept]), kept)


def test_answers_for_earlier_tasks_stay(finished):
    assert_earlier_answers_stay(*finished[:2])


def test_answers_for_earlier_tasks_stay_in_any_network():
    assert_earlier_answers_stay(*told_run(HAT(0.1, largest_scale=50)))


def test_used_units_are_those_of_open_gates(finished):
    module, _, kept = finished
    part, used = module.continual.parts["hat"], None
    for task in range(3):
        gate = (part.embeddings["body/3"][task] > 0).double().detach()
        used = gate if used is None else torch.maximum(used, gate)
        assert torch.equal(kept.used[task]["body.3"], used)
    assert 0 < float(kept.used[0]["body.3"].mean()) < 1


def test_weights_move_only_where_a_unit_is_free(finished):
    _, _, kept = finished
    for task in (1, 2):
        before, after, used = kept.weights[task - 1], kept.weights[task], kept.used[task - 1]
        moved = before["body.3.weight"] != after["body.3.weight"]
        read = used["body.0"].repeat_interleave(4)
        fixed = (used["body.3"][:, None] == 1) & (read[None] == 1)
        assert not bool(moved[fixed].any())
        assert float(moved[~fixed].double().mean()) > 0.3
        assert torch.equal(before["body.0.weight"][used["body.0"] == 1], after["body.0.weight"][used["body.0"] == 1])
        assert torch.equal(before["body.3.bias"][used["body.3"] == 1], after["body.3.bias"][used["body.3"] == 1])
        assert torch.equal(before["shift"], after["shift"])
        for row in range(3):
            name = "continual.parts.hat.embeddings.body/3"
            assert torch.equal(before[name][row], after[name][row]) == (row != task)


def test_the_scale_follows_the_samples(finished):
    _, _, kept = finished
    assert kept.scales[:4] == pytest.approx([0.02 + share * (50 - 0.02) for share in (0, 8 / 20, 16 / 20, 0)])


def test_a_step_by_hand():
    """The gradients that reach the optimiser, typed out from the paper's equations."""
    torch.manual_seed(0)
    net = Chain().double()
    HAT(0.75, largest_scale=4.0).attach_once(net, make_stream().info)
    part, x, y = net.continual.parts["hat"], torch.rand(5, 1, 4, 4).double(), torch.tensor([2, 3, 2, 3, 2])
    part.finished.set(1)
    part.scale, net.continual.choice.current = 1.5, 1
    generator = torch.Generator().manual_seed(1)
    for _, used in part.used.items():
        used.copy_(torch.rand(len(used), generator=generator).round(decimals=1))
    loss = nn.functional.cross_entropy(net(x), y) + sum(part.losses(None).values())
    loss.backward()
    optimizer = torch.optim.SGD(net.parameters(), lr=1)
    part.edit_gradients(net, optimizer)

    e = {n: part.embeddings[n.replace(".", "/")][1].detach().clone().requires_grad_() for n in part.layers}
    w = {n: p.detach().clone().requires_grad_() for n, p in net.named_parameters() if not n.startswith("continual")}
    a = {n: torch.sigmoid(1.5 * v) for n, v in e.items()}
    h = nn.functional.conv2d(x, w["body.0.weight"], w["body.0.bias"]) * a["body.0"].view(-1, 1, 1)
    h = (h.relu().flatten(1) @ w["body.3.weight"].T + w["body.3.bias"]) * a["body.3"]
    h = (h.tanh() @ w["body.5.weight"].T + w["body.5.bias"]) * a["body.5"]
    logits = ((h + w["shift"]) @ w["fc.weight"].T + w["fc.bias"])[:, 2:4]
    used = dict(part.used.items())
    spent = sum((a[n] * (1 - used[n])).sum() for n in a) / sum((1 - used[n]).sum() for n in a)
    expected = nn.functional.cross_entropy(logits, y - 2) + 0.75 * spent
    assert_close(loss, expected)
    expected.backward()
    share = 1 - torch.minimum(used["body.3"][:, None], used["body.0"].repeat_interleave(4)[None])
    assert_close(net.body[3].weight.grad, w["body.3.weight"].grad * share)
    assert_close(net.body[0].weight.grad, w["body.0.weight"].grad * (1 - used["body.0"]).view(-1, 1, 1, 1))
    assert_close(net.body[5].bias.grad, w["body.5.bias"].grad * (1 - used["body.5"]))
    for name, value in e.items():
        factor = 4 / 1.5 * (torch.cosh(1.5 * value) + 1) / (torch.cosh(value) + 1)
        found = part.embeddings[name.replace(".", "/")].grad
        assert_close(found[1], value.grad * factor.detach())
        assert not bool(found[[0, 2]].any())


def test_soft_gates_are_nearly_the_same(finished):
    module = finished[0]
    part, hard = module.continual.parts["hat"], answers(finished[0], 1)
    part.binary, largest = False, part.largest
    part.largest = 1e4
    assert_close(answers(module, 1), hard, rtol=1e-3, atol=1e-3)
    part.largest = 2
    assert not torch.allclose(answers(module, 1), hard, atol=1e-2)
    part.binary, part.largest = True, largest
