"""GDumb: a whole run against the training on its memory typed out, and what the stream must not move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lightning_cl.callbacks import GDumb

from ..by_hand import SIZE, TASKS, Net, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS = 6


def rates(lr: float) -> list[float]:
    """Of every epoch: a tenth, then torch's schedule."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=lr)
    schedule = CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2, eta_min=5e-4)
    found = [lr / 10]
    for _ in range(EPOCHS - 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def by_hand(batches: list[Any], classes: int, lr: float) -> Net:
    """A fresh network that learns the batches of one task's end; rows of unseen classes do not decay."""
    net = Net().double()
    net.load_state_dict(start())
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9, weight_decay=1e-6)
    each = len(batches) // EPOCHS
    for epoch, rate in enumerate(rates(lr)):
        optimizer.param_groups[0]["lr"] = rate
        for drawn in batches[epoch * each : (epoch + 1) * each]:
            optimizer.zero_grad()
            F.cross_entropy(net(drawn.inputs)[:, :classes], drawn.labels).backward()
            optimizer.step()
            with torch.no_grad():
                for name, p in net.fc.named_parameters():
                    p[classes:] = start()[f"fc.{name}"][classes:]
    return net


def test_a_run_equals_the_training_on_the_memory(reads: list[Any]) -> None:
    """12 slots in batches of 5: three steps an epoch; every task begins anew."""
    net = run(GDumb(12, 5, lr=0.1, epochs=EPOCHS, cutmix=0.0))
    assert len(reads) == TASKS * EPOCHS * 3
    for task in range(TASKS):
        batches = reads[task * EPOCHS * 3 : (task + 1) * EPOCHS * 3]
        hand = weights(by_hand(batches, (task + 1) * SIZE, 0.1))
        for name, value in net.ends[task].items():
            torch.testing.assert_close(value, hand[name], rtol=1e-10, atol=1e-10)
        labels = torch.cat([drawn.labels for drawn in batches[:3]])
        assert torch.bincount(labels).tolist() == [12 // ((task + 1) * SIZE)] * (task + 1) * SIZE
    assert not net.tasks[-1]  # the user's step was never made


def test_the_stream_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with momentum; without epochs on the memory nothing would have been learned."""
    monkeypatch.setattr("lightning_cl.callbacks.replay.gdumb.memory_step", lambda *_: None)
    found = weights(run(GDumb(12, 5, epochs=1)))
    assert all(torch.equal(found[name], value) for name, value in start().items())


def test_cutmix_is_of_images_alone(reads: list[Any]) -> None:
    """Another batch of the same memory is read for every mixed step."""
    mixed = weights(run(GDumb(12, 5, epochs=2, cutmix=1.0)))
    assert len(reads) == 2 * TASKS * 2 * 3
    plain = weights(run(GDumb(12, 5, epochs=2, cutmix=0.0)))
    assert any(not torch.equal(mixed[name], value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": 0.0}, "`lr` is 0.0; give a number above 0"),
        ({"epochs": 0}, "`epochs` is 0; give at least 1"),
        ({"cutmix": 1.5}, r"`cutmix` is 1.5; give a number in \[0, 1\]"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GDumb(**arguments)


def test_the_stream_moves_nothing_by_decay_either() -> None:
    net = run(GDumb(20, 4, epochs=1), lr=0.1)
    optimizer, before = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5), weights(net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    net.continual.parts["gdumb"].edit_gradients(net, optimizer)
    optimizer.step()
    assert all(torch.equal(weights(net)[name], value) for name, value in before.items())
