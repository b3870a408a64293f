"""GSS: scores against gradients by autograd, and a memory that never outgrows its size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_cl.callbacks import GSS
from lightning_cl.callbacks.replay.gss import highest_cosine, last_layer_gradients

from ..by_hand import make_online, run

pytestmark = pytest.mark.filterwarnings("ignore")


def test_gradients_of_the_last_layer_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    head, features = nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    targets, allowed = torch.tensor([0, 2, 2, 0, 2]), torch.tensor([True, False, True])
    logits = head(features)
    found = last_layer_gradients(features, logits.detach(), targets, allowed).view(5, 3, 5)
    for row in range(5):
        loss = F.cross_entropy(logits.masked_fill(~allowed, -torch.inf)[row], targets[row])
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias], retain_graph=True)
        torch.testing.assert_close(found[row], torch.cat([weight, bias[:, None]], 1))


def test_the_cosine_of_the_specification() -> None:
    references = torch.tensor([[1.0, 1.0], [-1.0, 0.0]])
    assert float(highest_cosine(torch.tensor([[1.0, 0.0]]), references)) == pytest.approx(0.7071, abs=1e-4)
    assert float(highest_cosine(torch.zeros(1, 2), references)) == 0


@pytest.mark.parametrize("gradient", ["last_layer", "network"])
def test_its_memory_is_bounded_and_scored(gradient: str) -> None:
    method = GSS(memory_size=7, batch_size=4, gradient=gradient, batches=2, rows=3)
    net = run(method, stream=make_online())
    assert method.memory is not None
    buffer = method.memory.buffer
    assert len(buffer) == 7
    scores = buffer.policy.scores
    assert scores.shape == (7,)
    assert bool((scores.abs() <= 1 + 1e-9).all())
    assert len(set(scores.tolist())) > 1
    assert net.trainer.global_step > 0
