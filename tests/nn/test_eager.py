"""What listens to the layers of a network hears them also in one that ran compiled before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_cl.nn.input_grams import input_grams
from lightning_cl.nn.unit_outputs import layer_input, unit_outputs
from lightning_cl.nn.units import unit_links

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def nets() -> Any:
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled(X)  # without hooks
    yield net, compiled
    torch._dynamo.reset()


@torch.no_grad()
def test_a_layer_s_input_the_units_and_the_grams(nets: Any) -> None:
    net, compiled = nets
    with layer_input(net[2]) as inputs, unit_outputs({"1": net[1]}) as outputs, input_grams({"2": net[2]}) as grams:
        compiled(X)
    hidden = net[:2](X)
    assert torch.equal(inputs[0], hidden)
    assert torch.equal(outputs["1"][0], hidden)
    assert torch.allclose(grams["2"], hidden.double().T @ hidden.double())


def test_units_that_one_layer_reads(nets: Any) -> None:
    net, compiled = nets

    def run(weights: Any) -> Any:
        return torch.func.functional_call(compiled, {f"_orig_mod.{name}": w for name, w in weights.items()}, (X,))

    run({})
    assert [(link.maker, link.reader) for link in unit_links(net, run)] == [("0", "2")]
