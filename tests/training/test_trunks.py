"""Copies of a trunk answer as the network did when they were made, whatever its head reads."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_cl.callbacks import FineTuning
from lightning_cl.datamodules import StreamInfo
from lightning_cl.training.trunks import Trunks

INFO = StreamInfo(1, 3, ("a", "b", "c"), ((0, 1, 2),), "test")
IMAGES = torch.arange(2 * 1 * 4 * 4, dtype=torch.float32).view(2, 1, 4, 4) / 10


class Tower(nn.Module):
    """A stem with batch norm, a stage behind it, and any head."""

    def __init__(self, head: nn.Module, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.stage = nn.Conv2d(4, 5, 1)
        self.head, self.read = head, read

    def features(self, x: Tensor) -> Tensor:
        return self.read(self.stage(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Module(LightningModule):
    def __init__(self, head: nn.Module, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = Tower(head, read)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def mean(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def whole(maps: Tensor) -> Tensor:
    return maps


READS = {"mean": (nn.Linear, mean), "tokens": (nn.Linear, tokens), "map": (lambda d, c: nn.Conv2d(d, c, 1), whole)}


def module_with(read: str = "mean", stage: str | None = None, asks: bool = True) -> tuple[Any, Trunks]:
    torch.manual_seed(0)
    head, function = READS[read]
    module = Module(head(5, 3), function).eval()
    FineTuning(head="net.head").attach_once(module, INFO)
    trunks = Trunks(module, stage, "Method")
    module.net.__dict__["asked"] = []
    if asks:
        module.net.head.register_forward_pre_hook(lambda head, args: asked(module, trunks))
    return module, trunks


def asked(module: Any, trunks: Trunks) -> None:
    """Within a call of the head, as methods ask."""
    if len(trunks) and not trunks.passing:
        module.net.asked.append(trunks.features(module))


def changed(module: Any) -> None:
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.add_(0.1)
        module.net.stem[1].running_mean.add_(1.0)


@pytest.mark.parametrize("read", READS)
def test_a_copy_gives_the_head_what_the_network_did(read: str) -> None:
    module, trunks = module_with(read)
    with torch.no_grad():
        was = module.net.features(IMAGES)
        was = mean(was) if read == "map" else was.flatten(0, -2)
        trunks.add(module)
        changed(module)
        module(IMAGES)
    torch.testing.assert_close(module.net.asked[0][0], was, rtol=0, atol=0)


def test_a_copy_is_asked_in_eval_mode_and_without_gradient() -> None:
    module, trunks = module_with()
    trunks.add(module)
    module.train()
    before = module.net.stem[1].running_mean.clone()
    module.net(IMAGES)  # not the outermost
    (found,) = module.net.asked[0]
    assert not found.requires_grad
    assert module.net.stem[1].training
    once = 0.9 * before + 0.1 * module.net.stem[0](IMAGES).mean((0, 2, 3))
    torch.testing.assert_close(module.net.stem[1].running_mean, once)  # of the live pass alone


def test_shared_parts_answer_once_and_get_a_gradient_of_every_copy() -> None:
    module, trunks = module_with(stage="net.stage")
    trunks.add(module)
    assert set(trunks.copies[0].names) == {"net.stage.weight", "net.stage.bias"}
    changed(module)
    module(IMAGES)
    (found,) = module.net.asked[0]
    stage = trunks.copies[0]
    by_hand = mean(nn.functional.conv2d(module.net.stem(IMAGES), stage["net.stage.weight"], stage["net.stage.bias"]))
    torch.testing.assert_close(found, by_hand)
    stem = list(module.net.stem.parameters())
    for gradient, expected in zip(
        torch.autograd.grad(found.sum(), stem), torch.autograd.grad(by_hand.sum(), stem), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_weights_are_put_back_with_statistics_and_without_other_buffers() -> None:
    module, trunks = module_with()
    module.net.register_buffer("counted", torch.zeros(()))
    was = {name: value.clone() for name, value in module.net.state_dict().items()}
    trunks.add(module)
    changed(module)
    module.net.counted += 1
    trunks.put_back(module, 0)
    now = module.net.state_dict()
    moved = {name for name, value in was.items() if not torch.equal(now[name], value)}
    assert moved == {"head.weight", "head.bias", "counted"}


def test_weights_outside_of_what_was_called_are_an_error() -> None:
    module, trunks = module_with()
    module.before = nn.Linear(1, 1)
    trunks.add(module)
    with pytest.raises(ValueError, match=r"`net` was called by itself and `before\.weight`"):
        module.net(IMAGES)
    module.continual.step = SimpleNamespace(inputs=IMAGES)
    with pytest.raises(ValueError, match=r"lies outside of it; call the module's `forward`"):
        module.net(IMAGES)


def test_copies_of_a_module_have_their_own() -> None:
    module, trunks = module_with(asks=False)
    trunks.add(module)
    other = copy.deepcopy(module)
    mine, theirs = (m.net.__dict__["_answers_with"][0] for m in (module, other))
    assert mine is trunks
    assert theirs is not trunks
    assert torch.equal(theirs.copies[0]["net.stage.weight"], trunks.copies[0]["net.stage.weight"])
    assert theirs.copies[0]["net.stage.weight"] is not trunks.copies[0]["net.stage.weight"]
    pickle.loads(pickle.dumps(module))
