"""Copies, averages and anchors of weights against the formulas, and a slowed step against a smaller learning rate."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.nn import Snapshot, StepScale, ema, interpolate, pull_gradients, trained
from lightning_cl.nn.weights import overwrite


def small(seed: int = 0, width: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2)).double()


def test_a_snapshot_keeps_what_the_weights_were():
    module = small()
    module[0].bias.requires_grad_(False)
    snapshot = Snapshot(trained(module))
    assert not snapshot.taken
    assert dict(snapshot.items()).keys() == {"0.weight", "2.weight", "2.bias"}
    assert not list(snapshot.parameters())
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    snapshot.take(trained(module))
    for p in module.parameters():
        p.data.add_(1)
    assert snapshot.taken
    for name, kept in snapshot.items():
        assert torch.equal(kept, before[name])
        assert not kept.requires_grad


def test_importances_start_at_zero():
    assert all((kept == 0).all() for _, kept in Snapshot(trained(small()), zero=True).items())


def test_a_snapshot_comes_back_from_a_checkpoint_inside_another_module():
    module = small()
    holder = nn.ModuleDict({"anchor": Snapshot(trained(module)), "importance": Snapshot(trained(module), zero=True)})
    holder["anchor"].take(trained(small(seed=1)))
    file = io.BytesIO()
    torch.save(holder.state_dict(), file)
    file.seek(0)
    fresh = nn.ModuleDict({"anchor": Snapshot(trained(module)), "importance": Snapshot(trained(module), zero=True)})
    copied = copy.deepcopy(fresh)
    state = torch.load(file, weights_only=True)
    for restored in (fresh, copied):
        restored.load_state_dict(state)
        assert restored["anchor"].taken
        assert not restored["importance"].taken
        for (_, a), (_, b) in zip(restored["anchor"].items(), holder["anchor"].items(), strict=True):
            assert torch.equal(a, b)


def test_a_snapshot_of_another_module_is_refused():
    snapshot = Snapshot(trained(small()))
    before = {name: kept.clone() for name, kept in snapshot.items()}
    with pytest.raises(ValueError, match=r"`0.weight` of the shape \(4, 3\), which is missing in the weights given"):
        snapshot.take(trained(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Linear(4, 2))) | {"0.weight": None})
    with pytest.raises(ValueError, match=r"of the shape \(5, 3\).*take the weights of the module"):
        snapshot.take(trained(small(width=5)))
    assert all(torch.equal(kept, before[name]) for name, kept in snapshot.items())
    assert not snapshot.taken
    other = nn.ModuleDict({"anchor": Snapshot({"net.layer.weight": torch.zeros(2)})})
    with pytest.raises(ValueError, match="the checkpoint's snapshot holds net/layer/weight, but this one is of a"):
        nn.ModuleDict({"anchor": snapshot}).load_state_dict(other.state_dict())


def test_interpolation_ends_in_either_side_bit_for_bit():
    start, end = ({n: torch.randn(5) for n in ("a", "b")} for _ in range(2))
    assert all(torch.equal(v, start[n]) for n, v in interpolate(start, end, 0.0).items())
    assert all(torch.equal(v, end[n]) for n, v in interpolate(start, end, 1.0).items())
    half = interpolate(start, end, {"a": 0.25, "b": 0.75})
    assert_close(half["a"], 0.75 * start["a"] + 0.25 * end["a"])
    assert_close(half["b"], 0.25 * start["b"] + 0.75 * end["b"])


def test_an_average_follows_the_weights():
    average = {"a": torch.tensor([1.0, 2.0])}
    expected = average["a"].clone()
    for _ in range(3):
        new = torch.randn(2)
        ema(average, {"a": new, "other": torch.ones(1)}, 0.9)
        expected = 0.9 * expected + 0.1 * new
    assert_close(average["a"], expected)


def test_the_pull_of_an_anchor():
    weight, fresh = nn.Parameter(torch.tensor([0.1, -0.2])), nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(2)
    anchor, importance = {"w": torch.zeros(2), "gone": torch.zeros(3)}, {"w": torch.tensor([2.0, 0.5])}
    pull_gradients({"w": weight, "fresh": fresh}, anchor, 100.0, importance)
    assert_close(weight.grad, torch.tensor([21.0, -9.0]))  # the worked number, (20, -10), on a gradient of one
    assert fresh.grad is None
    weight.grad = None
    (50.0 * (importance["w"] * weight.square()).sum()).backward()  # strength / 2
    assert_close(weight.grad, torch.tensor([20.0, -10.0]))
    weight.grad = torch.zeros(2)
    pull_gradients({"w": weight}, anchor, 3.0)
    assert_close(weight.grad, torch.tensor([0.3, -0.6]))


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    "adam": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_slowed_step_is_a_smaller_learning_rate_for_some_weights(name):
    kind, options = OPTIMIZERS[name]
    slow, twin = small(), small()
    inputs = torch.randn(6, 3, dtype=torch.float64)
    one = kind(slow.parameters(), lr=0.1, **options)
    StepScale(slow[0].parameters(), 0.01).attach(one)
    groups = [{"params": twin[0].parameters(), "lr": 0.001}, {"params": twin[2].parameters()}]
    two = kind(groups, lr=0.1, **options)
    for module, optimizer in ((slow, one), (twin, two)):
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        for _ in range(8):
            optimizer.zero_grad()
            module(inputs).square().sum().backward()
            optimizer.step()
            schedule.step()
    for a, b, start in zip(slow.parameters(), twin.parameters(), small().parameters(), strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-14)
        assert not torch.equal(a, start)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_no_step_and_the_whole_step_are_exact(scale):
    module, plain = small().float(), small().float()
    for m in (module, plain):
        optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
        if m is module:
            StepScale(m.parameters(), scale).attach(optimizer)
        m(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    expected = plain if scale else small().float()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), expected.parameters(), strict=True))


def test_a_scale_above_one_is_refused():
    with pytest.raises(ValueError, match=r"`scale` is 1.5; give a share of the step in \[0, 1\]"):
        StepScale([], 1.5)


def test_values_are_written_over_the_weights_of_their_names():
    weights = {name: nn.Parameter(torch.zeros(2)) for name in "abc"}
    overwrite(weights, {"a": torch.ones(2), "c": torch.full((2,), 3.0)}.items())
    assert [weight.tolist() for weight in weights.values()] == [[1, 1], [0, 0], [3, 3]]
    assert all(weight.is_leaf for weight in weights.values())
