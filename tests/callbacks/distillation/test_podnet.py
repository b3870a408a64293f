"""PODNet-style distillation: the numbers of its specification, and a whole run against the formulas typed out."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks import PODNet
from lightning_cl.nn.heads import proxy_logits
from lightning_cl.nn.losses import pooled_distance
from lightning_cl.nn.token_maps import stage_maps

from ..by_hand import CLASSES, MOMENTUM, Net, TaughtByHand, assert_close, run, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_loss_of_the_worked_example() -> None:
    """Scores (0.8, 0.2): the cross-entropy is the released code's loss; (0.2, 0.8): where it is not."""
    proxies, label = torch.tensor([[[0.8, 0.6]], [[0.2, 0.96**0.5]]]), torch.tensor([0])  # one of each class
    scores = proxy_logits(torch.tensor([[3.0, 0.0]]), proxies, 1.0)
    assert F.cross_entropy(scores, label).item() == pytest.approx(0.437488, abs=1e-6)
    assert F.cross_entropy(scores.flip(1), label).item() == pytest.approx(1.037488, abs=1e-6)


def test_maps_of_the_worked_example() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[1.0, 2.0], [3.0, 5.0]]]])
    assert pooled_distance(maps[:1], maps[:1]).item() == 0
    assert pooled_distance(maps[:1], maps[1:]).item() == pytest.approx(0.095650, abs=1e-6)


def test_scores_of_proxies_against_a_loop() -> None:
    torch.manual_seed(0)
    features, proxies = torch.randn(3, 5), torch.randn(4, 2, 5)
    found = proxy_logits(features, proxies, 2.0)
    for row, f in zip(found, features, strict=True):
        for score, members in zip(row, proxies, strict=True):
            c = [float(f @ p / (f.norm() * p.norm())) for p in members]
            parts = torch.tensor(c).exp() / torch.tensor(c).exp().sum()
            assert score.item() == pytest.approx(2.0 * sum(w * v for w, v in zip(parts.tolist(), c, strict=True)))


class ConvNet(Net):
    """Two stages of maps; keeps the first proxies."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        first, second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 2, stride=2)
        self.body = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Flatten(), nn.Linear(12, 9))
        self.first: Any = None

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        if self.first is None:
            self.first = self.continual.parts["podnet"].proxies.detach().clone()  # type: ignore[operator, index, union-attr]


class PODNetByHand(TaughtByHand):
    """Proxies and scale have an optimiser of their own; sums over the rows and the columns of squared maps."""

    def __init__(self, net: ConvNet, spatial: float, flat: float, scale: float) -> None:
        self.spatial, self.flat, self.begun = spatial, flat, -1
        self.proxies = net.first.clone().requires_grad_()
        self.scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
        super().__init__(net, seen=True)

    def untrained(self) -> Any:
        torch.manual_seed(0)
        return ConvNet().double()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.begun != self.task:
            self.begun = self.task
            self.optimizer = torch.optim.SGD([self.proxies, self.scale], lr=self.net.lr, momentum=MOMENTUM)
        self.optimizer.zero_grad()
        f = self.net.body(x)
        cosines = torch.stack([F.cosine_similarity(f[:, None], p[None], dim=2) for p in self.proxies], dim=1)
        scores = (cosines.exp() / cosines.exp().sum(2, keepdim=True) * cosines).sum(2)
        loss = F.cross_entropy(self.scale * scores[:, self.classes], y)
        return loss if self.teacher is None else loss + self.term(self.teacher, x)

    def term(self, teacher: Net, x: Tensor) -> Tensor:
        f, then = self.net.body(x), teacher.body(x).detach()
        flat = (1 - F.cosine_similarity(f, then, dim=1)).mean()
        stages = []
        for end in (2, 4):
            now, before = (pooled(net.body[:end](x)) for net in (self.net, teacher))
            stages.append((now - before.detach()).square().sum(1).add(1e-300).sqrt().mean())
        return sqrt(self.task + 1) * (self.flat * flat + self.spatial * sum(stages) / 2)

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.optimizer.step()


def pooled(maps: Tensor) -> Tensor:
    sums = torch.cat([(maps**2).sum(2).flatten(1), (maps**2).sum(3).flatten(1)], dim=1)
    return sums / sums.norm(dim=1, keepdim=True)


def test_a_run_equals_the_formulas() -> None:
    """In the first step of a task the distance of the stages is 0, and so is its gradient."""
    torch.manual_seed(0)
    net = run(PODNet(0.8, 0.5, proxies=2, scale=3.0, stages=["body.1", "body.3"]), net=ConvNet())
    hand = PODNetByHand(net, 0.8, 0.5, 3.0)
    assert_close(net, hand)
    part = net.continual.parts["podnet"]
    torch.testing.assert_close(part.proxies, hand.proxies)
    assert part.scale.item() == pytest.approx(hand.scale.item())
    assert part.proxies.shape == (CLASSES, 2, 9)
    assert all(
        torch.equal(now, then)
        for now, then in zip(weights(net.fc).values(), weights(hand.net.fc).values(), strict=True)
    )


def test_layers_without_maps_are_refused_in_the_first_step() -> None:
    net = ConvNet()
    with pytest.raises(ValueError, match=r"a stage gives a tensor of the shape \(8, 9\), but .* `stages="):
        run(PODNet(stages=["body.5"]), net=net)
    assert len(net.tasks) == len(net.tasks[0]) == 1


@pytest.mark.parametrize("output", [(torch.ones(2, 4, 3), "more"), torch.ones(2, 4, 3)])
def test_of_several_outputs_of_a_stage_the_first_is_read(output: Any) -> None:
    (maps,) = stage_maps({"stage": output}, ["stage"])
    assert maps.shape == (2, 3, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"flat": -1.0}, "`flat` is -1.0; give at least 0"),
        ({"proxies": 0}, "`proxies` is 0; give at least 1"),
        ({"scale": 0.0}, "`scale` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PODNet(**arguments)
