"""MEMO: which parts are shared, and a whole run against the formulas typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import MEMO

from ..by_hand import CLASSES, TASKS, Net, assert_close, assert_differs, make_online, run, weights
from .growing_by_hand import GrownByHand

pytestmark = pytest.mark.filterwarnings("ignore")


class Counted(nn.Linear):
    """Counts its passes."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(x)


class Deep(Net):
    """A network of three layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Flatten(), Counted(16, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh())
        self.fc = nn.Linear(9, CLASSES)
        self.double()


class SharedByHand(GrownByHand):
    """The first three parts of a body are the live one's, with their gradient."""

    def untrained(self) -> Any:
        return Deep()

    def earlier(self, body: Any, x: Tensor) -> Tensor:
        for parameter in body.parameters():
            parameter.requires_grad_(False)
        return body[3:](self.net.body[:3](x))


@pytest.fixture(scope="module")
def grown() -> Any:
    return run(MEMO(stage="body.3"), net=Deep())


def test_a_run_is_that_of_the_formulas(grown: Any) -> None:
    assert_close(grown, SharedByHand(grown))
    assert_differs(grown, GrownByHandOnDeep(grown).net)


class GrownByHandOnDeep(SharedByHand):
    """Earlier blocks that give the shared parts no gradient."""

    def earlier(self, body: Any, x: Tensor) -> Tensor:
        return super().earlier(body, x).detach()


def test_the_copies_are_of_the_last_blocks(grown: Any) -> None:
    part = grown.continual.parts["memo"]
    assert len(part.trunks) == TASKS - 1
    for copied, end in zip(part.trunks.copies, grown.ends, strict=False):
        assert set(copied.names) == {"body.3.weight", "body.3.bias"}
        assert all(torch.equal(value, end[name]) for name, value in copied.items())


def test_the_shared_parts_run_once_and_stay_if_they_are_not_trained() -> None:
    net = run(MEMO(stage="body.3", train_base=False), net=Deep())
    first, last = net.ends[0], weights(net)
    assert all(torch.equal(first[f"body.1.{name}"], last[f"body.1.{name}"]) for name in ("weight", "bias"))
    assert not torch.equal(first["body.3.weight"], last["body.3.weight"])
    before = net.body[1].passes
    net(torch.rand(2, 16, dtype=torch.float64))
    assert net.body[1].passes == before + 1


def test_the_last_stage_is_found() -> None:
    class Staged(Net):
        def __init__(self) -> None:
            super().__init__()
            layers = {"stem": nn.Linear(16, 9), "layer1": nn.Linear(9, 9), "layer2": nn.Linear(9, 9)}
            self.body = nn.Sequential(nn.Flatten())
            for name, layer in layers.items():
                self.body.add_module(name, layer)

    net = Staged()
    MEMO().attach_once(net, make_online().info)
    assert set(net.continual.parts["memo"].trunks.weights(net)) == {"body.layer2.weight", "body.layer2.bias"}
    apart = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.Linear(9, 9), nn.Linear(9, CLASSES))
    net = Net()
    net.body, net.fc = apart, nn.Identity()
    MEMO().attach_once(net, make_online().info)
    assert set(net.continual.parts["memo"].trunks.weights(net)) == {"body.2.weight", "body.2.bias"}
    with pytest.raises(ValueError, match="no stages were found in this Net; name the first part"):
        MEMO().attach_once(Net(), make_online().info)
