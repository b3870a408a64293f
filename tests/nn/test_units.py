"""Units that one layer reads are found in networks of several kinds, and starting them anew does what it says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from tiny import images, tiny_vit
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.nn.units import UnitLink, restart_units_, unit_activity, unit_links


class Residual(nn.Module):
    """A convolution into units on a residual path, one into units that only the next reads, and a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.outer = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)
        self.last, self.hidden, self.fc = nn.Conv2d(3, 2, 3), nn.Linear(8, 5), nn.Linear(5, 3)
        self.mixed = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(x + self.outer(F.relu(self.norm(self.inner(x)))))
        passed = x.mean((1, 2, 3))[:, None]
        x = F.relu(self.last(x)).flatten(1)
        return self.fc(self.mixed(self.hidden(x))) + passed


def answer(net: nn.Module, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return torch.func.functional_call(net, dict(weights), (x,)).detach()


def test_units_on_residual_paths_and_under_layer_norms_are_left_out() -> None:
    torch.manual_seed(0)
    net, x = Residual().double().eval(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    assert unit_links(net, partial(answer, net, x)) == [UnitLink("inner", "outer", 1), UnitLink("last", "hidden", 4)]


def test_in_a_vision_transformer_they_are_those_of_the_mlps() -> None:
    net = tiny_vit(depth=2)
    links = unit_links(net, partial(answer, net, images(3)))
    assert links == [UnitLink(f"blocks.{n}.mlp.fc1", f"blocks.{n}.mlp.fc2", 1) for n in range(2)]


def test_activity_is_the_mean_of_what_the_reader_is_given() -> None:
    torch.manual_seed(0)
    net, x = Residual().double().eval(), torch.randn(6, 2, 4, 4, dtype=torch.float64)
    flat = UnitLink("last", "hidden", 4)
    found = unit_activity(net, [flat], partial(answer, net, x, {}))[0]
    given: list[Tensor] = []
    net.hidden.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    net(x)
    assert found[-1] == 6
    assert_close(found[:-1] / found[-1], given[0].detach().view(6, 2, 4).mean((0, 2)))


def test_a_unit_that_never_answers_is_started_anew_without_a_change_of_the_answer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(7, 3)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = 0, -1
    optimizer = torch.optim.Adam(net.parameters(), 0.0)
    net(x).sum().backward()
    optimizer.step()
    (link,) = unit_links(net, partial(answer, net, x))
    before, state = net(x).detach(), optimizer.state
    kept = net[0].weight.detach().clone()
    restart_units_(net, link, torch.tensor([1]), torch.Generator().manual_seed(0), state)
    assert torch.equal(net(x), before)
    others = [0, 2, 3]
    assert torch.equal(net[0].weight[others], kept[others])
    assert bool((net[0].weight[1] != kept[1]).all())
    assert net[0].weight[1].abs().max() <= 3**-0.5
    assert not net[2].weight[:, 1].any()
    outgoing, incoming = state[net[2].weight]["exp_avg"], state[net[0].weight]["exp_avg_sq"]
    assert not outgoing[:, 1].any()
    assert outgoing[:, 0].all()
    assert not incoming[1].any()
    assert incoming[0].all()
