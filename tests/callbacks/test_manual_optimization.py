"""Modules that make the optimiser's step within ``training_step``: the same run as others, or one error before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.methods import METHODS, make
from torch import Tensor

from lightning_cl.callbacks import GEM, MER, SynapticIntelligence
from lightning_cl.callbacks.module_kind import check_module

from .by_hand import Net, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
LATE = [method for method in METHODS if method.adds_loss is True or method.needs_automatic]


class Manual(Net):
    """Makes its own steps."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.load_state_dict(start())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


@pytest.mark.parametrize("method", [GEM(12, 5), SynapticIntelligence(5.0), MER(12, 5)], ids=lambda m: type(m).__name__)
def test_methods_that_act_at_the_optimiser_s_step_do_the_same(method: Any) -> None:
    made, expected = run(method, net=Manual()), run(type(method)(**method.config()))
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(made)[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", LATE, ids=lambda m: m.__name__)
def test_methods_that_come_too_late_are_refused(method: Any) -> None:
    with pytest.raises(ValueError, match=rf"{method.__name__} .*Manual optimises manually; set `automatic_optimiz"):
        check_module(make(method), Manual())


@pytest.mark.parametrize("method", [m for m in METHODS if m.needs_automatic], ids=lambda m: m.__name__)
def test_before_anything_is_attached(method: Any) -> None:
    net = Manual()
    with pytest.raises(ValueError, match="makes the loss of a step itself, or acts between the loss and the optimiser"):
        run(make(method), net=net)
    assert not hasattr(net, "continual")
