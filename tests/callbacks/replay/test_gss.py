"""GSS: a memory that never outgrows its size, with scores."""

from __future__ import annotations

import pytest

from lightning_cl.callbacks import GSS

from ..by_hand import make_online, run

pytestmark = pytest.mark.filterwarnings("ignore")


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
