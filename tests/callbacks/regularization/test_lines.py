"""LiNeS: a whole run against its formula typed out, and its two ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cl.callbacks import LiNeS

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class LiNeSByHand(ByHand):
    """The one layer of the body beside the head, as the only block or outside of it."""

    def __init__(self, net: Net, factor: float, previous: bool) -> None:
        self.factor, self.previous, self.reference = factor, previous, start()
        super().__init__(net)

    def end(self, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            for name, p in self.net.body.named_parameters():
                known = self.reference[f"body.{name}"]
                p.copy_(known + self.factor * (p - known))
        if self.previous:
            self.reference = weights(self.net)


@pytest.mark.parametrize("reference", ["previous", "pretrained"])
def test_a_run_equals_the_formula(reference: Any) -> None:
    """A network of one block is its last: ``alpha + beta``."""
    net = run(LiNeS(0.2, 0.5, reference), lr=0.1)
    assert_close(net, LiNeSByHand(net, 0.7, reference == "previous"))
    other = "pretrained" if reference == "previous" else "previous"
    assert_differs(net, run(LiNeS(0.2, 0.5, other), lr=0.1))  # type: ignore[arg-type]


class Deep(Net):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 9)]
        self.body = nn.Sequential(nn.Flatten(), *layers)


def test_deep_layers_keep_more() -> None:
    """Of three blocks the shares of the way are alpha, the mean of alpha and 1, and 1."""
    ways = []
    for alpha in (1.0, 0.5):
        torch.manual_seed(0)
        net = Deep().double()
        before = weights(net)
        run(LiNeS(alpha), net=net)
        ways.append({name: (value - before[name]) for name, value in net.ends[0].items()})
    for name, share in (("body.1.weight", 0.5), ("body.3.bias", 0.75), ("body.5.weight", 1.0), ("fc.weight", 1.0)):
        torch.testing.assert_close(ways[1][name], share * ways[0][name], rtol=1e-10, atol=1e-12)


def test_the_full_way_is_fine_tuning() -> None:
    assert_fine_tuning(LiNeS(1.0))


def test_no_way_undoes_the_task_but_the_head() -> None:
    found = weights(run(LiNeS(0.0, 0.0)))
    for name, value in start().items():
        assert torch.equal(found[name], value) == name.startswith("body")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": 1.5}, r"`alpha` is 1.5; give a number in \[0, 1\]"),
        ({"alpha": 0.5, "beta": 0.7}, r"`beta` is 0.7, but `alpha` is 0.5; give a number in \[0, 0.5\]"),
        ({"reference": "first"}, "`reference` is 'first'; give one of 'previous', 'pretrained'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LiNeS(**arguments)
