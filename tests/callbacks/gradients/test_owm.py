"""OWM-style steps: a whole run against the projector typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cl.callbacks import OWM

from ..by_hand import ByHand, Net, assert_close, assert_differs, assert_fine_tuning, run

pytestmark = pytest.mark.filterwarnings("ignore")


class OWMByHand(ByHand):
    """One layer of 16 inputs besides the head; its bias stays after the first task."""

    def __init__(self, net: Net, alpha: float) -> None:
        self.alpha, self.moments = alpha, torch.zeros(16, 16, dtype=torch.float64)
        super().__init__(net)

    def stepped(self, before: dict[str, Tensor]) -> None:
        if not self.task:
            return
        layer = self.net.body[1]
        projector = torch.linalg.inv(torch.eye(16, dtype=torch.float64) + self.moments / self.alpha)
        with torch.no_grad():
            known = before["body.1.weight"]
            layer.weight.copy_(known + (layer.weight - known) @ projector)
            layer.bias.copy_(before["body.1.bias"])

    def end(self, x: Tensor, y: Tensor) -> None:
        second = x.flatten(1).T @ x.flatten(1)
        self.moments = self.moments + second * 16 / second.trace()


def test_a_run_equals_the_formula() -> None:
    net = run(OWM(0.5), lr=0.1)
    assert_close(net, OWMByHand(net, 0.5), bound=1e-5)
    assert_differs(net, run(OWM(1e-4), lr=0.1))


def test_an_infinite_alpha_is_fine_tuning() -> None:
    assert_fine_tuning(OWM(float("inf")))


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_bad_arguments(alpha: Any) -> None:
    with pytest.raises(ValueError, match=f"`alpha` is {alpha}; give a number above 0"):
        OWM(alpha)
