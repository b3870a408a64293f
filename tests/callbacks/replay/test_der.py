"""DER and DER++: the numbers of their specification, and a whole run against the formula typed out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import DER, DERPlusPlus
from lightning_cl.callbacks.replay.der import DarkReplay

from ..by_hand import SIZE, ByHand, Net, assert_close, assert_differs, assert_fine_tuning, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_worked_example() -> None:
    """Logits (1, 2), kept (0, 0), alpha 0.3: the mean over all columns is 2.5, the term 0.75."""
    z = torch.tensor([[1.0, 2.0]])
    drawn = SimpleNamespace(inputs=None, labels=torch.tensor([0]), extras={"logits": torch.zeros(1, 2)}, weight=1.0)
    module = SimpleNamespace(draw=lambda: drawn, keep=lambda **_: None)
    step = SimpleNamespace(module=module, raw_logits=z, learn=lambda _: (z, SimpleNamespace(raw_logits=z)))
    found = DarkReplay(0.3, 0.0).losses(step)  # type: ignore[arg-type]
    assert {name: term.item() for name, term in found.items()} == {"der_logits": pytest.approx(0.75)}
    both = DarkReplay(0.0, 0.5).losses(step)  # type: ignore[arg-type]
    assert both["der_labels"].item() == pytest.approx(0.5 * F.cross_entropy(z, torch.tensor([0])).item())


class DERByHand(ByHand):
    """Keeps the logits that every sample of the stream had in its first pass."""

    def __init__(self, net: Net, alpha: float, beta: float, draws: list[Any]) -> None:
        self.alpha, self.beta, self.draws, self.then, self.steps = alpha, beta, list(draws), {}, 0
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss, known = self.cross_entropy(x, y), dict(self.then)
        for image, z in zip(x, self.net(x).detach(), strict=True):
            self.then.setdefault(image.numpy().tobytes(), z)  # later epochs do not replace it
        if known:
            dark = self.draws.pop(0)
            then = torch.stack([known[image.numpy().tobytes()] for image in dark.inputs])
            loss = loss + self.alpha * ((self.net(dark.inputs) - then) ** 2).sum() / then.numel()
            if not self.beta:
                return loss
            labelled = self.draws.pop(0)
            seen = self.net(labelled.inputs)[:, self.classes]
            loss = loss + self.beta * F.cross_entropy(seen, labelled.labels)
        return loss


def test_a_run_equals_the_formula(draws: list[Any]) -> None:
    """Two independent batches a step; the logits are those of a sample's first step, over all columns."""
    net = run(DERPlusPlus(30, 6, alpha=0.4, beta=0.5), lr=0.1)
    hand = DERByHand(net, 0.4, 0.5, draws)
    assert_close(net, hand)
    assert not hand.draws
    assert_differs(net, run(DERPlusPlus(30, 6, alpha=0.0, beta=0.0), lr=0.1))


def test_the_two_batches_are_drawn_apart(draws: list[Any]) -> None:
    run(DERPlusPlus(30, 6))
    pairs = list(zip(draws[::2], draws[1::2], strict=True))
    full = [(a, b) for a, b in pairs if len(a.labels) == 6]
    assert any(not torch.equal(a.inputs, b.inputs) for a, b in full)
    assert {int(label) for drawn in draws[-6:] for label in drawn.labels} - set(range(SIZE * 2, SIZE * 3))


def test_one_term_alone(draws: list[Any]) -> None:
    """``DER``, which is ``beta=0``: one batch a step, and no labels."""
    net = run(DER(30, 6, alpha=0.3), lr=0.1)
    assert_close(net, DERByHand(net, 0.3, 0.0, draws))
    draws.clear()
    both = weights(run(DERPlusPlus(30, 6, alpha=0.3, beta=0.0), lr=0.1))
    assert all(torch.equal(both[name], value) for name, value in weights(net).items())
    assert len(draws) == 3 * 2 * 3 - 1  # the memory is empty in the very first step only


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(DERPlusPlus(30, 6, alpha=0.0, beta=0.0))
    assert_fine_tuning(DER(30, 6, alpha=0.0))


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_bad_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is -1.0; give at least 0"):
        DERPlusPlus(**{name: -1.0})
