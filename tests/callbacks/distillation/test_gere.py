"""GeRe: its margin against numbers worked out by hand, and what it takes of the model at first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCallback, GeRe
from lightning_cl.callbacks.distillation.gere import GeneralSamples
from lightning_cl.nn.losses import threshold_margin

from ..by_hand import Net, assert_fine_tuning, make_online, run

pytestmark = pytest.mark.filterwarnings("ignore")
LOW, HIGH = torch.tensor([-0.3] * 3), torch.tensor([0.7] * 3)  # mean 0.2, std 0.5


def test_the_margin_by_hand() -> None:
    """Low, neutral and high features, each once in its state and once out of it."""
    states = torch.tensor([[-1, 0, 1], [-1, 0, 1]])
    features = torch.tensor([[-0.5, 0.1, 0.9], [0.1, 1.0, 0.5]], requires_grad=True)
    loss = threshold_margin(features, states, LOW, HIGH)
    assert_close(loss, torch.tensor((0.4 + 0.3 + 0.2) / 3))  # three that left their state
    loss.backward()
    assert_close(features.grad, torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0]]) / 3)


def test_nothing_is_lost_where_all_are_in_their_states() -> None:
    features = torch.tensor([[-0.5, 0.1, 0.9]], requires_grad=True)
    loss = threshold_margin(features, torch.tensor([[-1, 0, 1]]), LOW, HIGH)
    loss.backward()
    assert loss == 0
    assert not features.grad.any()


def test_states_are_those_of_a_deviation_from_the_mean() -> None:
    part = GeneralSamples(3, GeRe(1.0, torch.zeros(8, 2), batch_size=4))
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    part._take(features)
    mean = features.mean(0)
    std = ((features - mean) ** 2).mean(0).sqrt()  # of the population
    assert_close(part.low, mean - std)
    assert_close(part.high, mean + std)
    expected = torch.zeros(8, 3)
    expected[features <= mean - std] = -1
    expected[features >= mean + std] = 1
    assert torch.equal(part.states.float(), expected)
    assert len(expected.unique()) == 3
    assert threshold_margin(features, part.states, part.low, part.high) == 0


class Terms(ContinualCallback):
    """The term of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.found.append(float(pl_module.continual.last_terms["gere"]))


def test_it_is_zero_at_first_and_the_features_are_those_of_the_model_as_it_came() -> None:
    general, terms = torch.rand(12, 1, 4, 4, dtype=torch.float64), Terms()
    net = run(GeRe(general=general, strength=1.0, batch_size=5), callbacks=[terms])
    assert terms.found[0] == 0
    assert max(terms.found) > 0
    first = Net().double()
    torch.manual_seed(0)
    first = Net().double()
    with torch.no_grad():
        features = first.body(general)
    assert_close(net.continual.parts["gere"].low.double(), features.mean(0) - features.std(0, correction=0))


class Named(Net):
    """Takes two inputs by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(1, 16)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(self.body(x if mask is None else x * mask))


def test_several_inputs_by_name() -> None:
    general = {"x": torch.rand(6, 1, 4, 4, dtype=torch.float64), "mask": torch.zeros(6, 1, 1, 1, dtype=torch.float64)}
    net = run(GeRe(general=general, batch_size=4), net=Named().double())
    part = net.continual.parts["gere"]
    assert torch.equal(part.low, part.high)  # all samples are masked, so all features are the same


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(GeRe(strength=0.0))


def test_a_stream_of_one_pass_needs_general_samples() -> None:
    with pytest.raises(ValueError, match="GeRe without `general` draws on the samples of the first task"):
        run(GeRe(), stream=make_online())
    run(GeRe(general=torch.rand(4, 1, 4, 4, dtype=torch.float64), batch_size=2), stream=make_online())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`count` is 0; give at least 1"):
        GeRe(count=0)
