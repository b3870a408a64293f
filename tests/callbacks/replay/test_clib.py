"""CLIB: a whole run is the training on what was read from the memory, and the stream itself teaches nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_cl.callbacks import CLIB
from lightning_cl.callbacks.replay import clib
from lightning_cl.mixins.replay import ReplayMixin

from ..by_hand import LR, MOMENTUM, Net, make_online, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


class Deaf(Net):
    """The step must not be made."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise AssertionError("the user's step is made on the stream")


def by_hand(batches: list[Any], classes: list[list[int]]) -> Net:
    """Plain training on the batches of the memory; of the head only rows of classes known at each step."""
    net = Net().double()
    net.load_state_dict(start())
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    for drawn, known in zip(batches, classes, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(net(drawn.inputs)[:, known], torch.tensor([known.index(y) for y in drawn.labels])).backward()
        before = weights(net)
        optimizer.step()
        with torch.no_grad():
            for name, p in net.fc.named_parameters():
                kept = before[f"fc.{name}"]
                kept[known] = p[known]
                p.copy_(kept)
    return net


def test_a_run_is_the_training_on_the_memory(reads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[list[int]] = []
    remember = ReplayMixin.remember

    def noting(self: Any, batch_idx: int) -> None:
        known.append(self.continual.mask.train_allowed.nonzero().flatten().tolist())
        remember(self, batch_idx)

    monkeypatch.setattr(ReplayMixin, "remember", noting)
    net = Deaf()
    net.load_state_dict(start())
    method = CLIB(12, 5, cutmix=0.0, adaptive=False, period=100)
    stream = make_online()
    run(method, net=net, stream=stream)
    steps = sum(stream.steps_of_tasks())
    assert len(reads) == len(known) == steps  # one batch of the memory a step, from the first on
    for name, value in weights(by_hand(reads, known)).items():
        torch.testing.assert_close(weights(net)[name], value, rtol=1e-9, atol=1e-9)
    assert len(method.memory.buffer) == 12


def test_losses_of_the_memory_are_those_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed out on the images that the memory's positions name, with the weights of that moment."""
    whole, seen = clib.memory_losses, []

    def checked(module: Any) -> Any:
        slots, losses = whole(module)
        memory, source = module.continual.memory, module.trainer.datamodule.source
        index = memory.buffer.read(slots)
        x = module.trainer.datamodule.batch(index, "eval")[0].double()
        allowed = module.continual.mask.eval_allowed
        with torch.no_grad():
            z = (module.fc.weight @ module.body(x).T).T + module.fc.bias
        expected = F.cross_entropy(z.masked_fill(~allowed, -torch.inf), source.train_labels[index], reduction="none")
        torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(source.train_labels[index], memory.buffer.labels[slots])
        seen.append(len(slots))
        return slots, losses

    monkeypatch.setattr(clib, "memory_losses", checked)
    method = CLIB(12, 5, period=2)
    run(method, stream=make_online())
    assert len(seen) > 2
    assert method.memory.buffer.policy.importance.abs().max() > 0


def test_what_the_losses_fell_by_is_that_of_samples_which_are_still_there() -> None:
    part = clib.MemoryOnly(4, 5, 1, 0.0, True)
    slots = torch.tensor([0, 1, 2])
    assert part._decrease(torch.tensor([7, 8, 9]), slots, torch.tensor([1.0, 2.0, 3.0])) is None
    found = part._decrease(torch.tensor([7, 5, 9]), slots, torch.tensor([0.5, 9.0, 2.0]))  # 8 has left
    assert found == pytest.approx((0.5 + 1.0) / 2)
    assert part._decrease(torch.tensor([6, 5]), slots[:2], torch.tensor([1.0, 8.0])) == pytest.approx(1.0)
