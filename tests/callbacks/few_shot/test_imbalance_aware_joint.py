"""Joint re-training: every task begins anew; a whole run of each remedy against its formula typed out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import ImbalanceAwareJoint
from lightning_cl.datamodules import Cumulative, FewShot

from ..by_hand import ByHand as Plain
from ..by_hand import Net, assert_close, make_stream, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")
#: Samples of the base classes, and of the novel ones of a session.
BASE, NOVEL = 10, 3


class Restarted(Net):
    """Remembers the weights with which every task begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[dict[str, Tensor]] = []

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        self.begins.append(weights(self))


def fitted(method: ImbalanceAwareJoint) -> Restarted:
    net = Restarted()
    net.load_state_dict(start())
    return run(method, net=net, stream=make_stream(scenario=Cumulative(FewShot(2, 2, NOVEL))))


class JointByHand(Plain):
    """A fresh network for every task."""

    def __init__(self, net: Net, remedy: str, scale: float) -> None:
        self.remedy, self.scale, self.begun = remedy, scale, -1
        super().__init__(net, seen=True)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.begun != self.task:
            self.begun = self.task
            with torch.no_grad():
                for name, p in self.net.named_parameters():
                    p.copy_(start()[name])
            self.net.zero_grad()
        counts = torch.tensor([BASE] * 2 + [NOVEL] * 2 * self.task, dtype=torch.float64)
        cosines = F.cosine_similarity(self.net.body(x)[:, None], self.net.fc.weight[None, self.classes], dim=2)
        if self.remedy == "ldam":
            margins = 0.5 * counts**-0.25 / (counts**-0.25).max()
            cosines = torch.stack(
                [row - margins * (torch.arange(len(row)) == c) for row, c in zip(cosines, y, strict=True)]
            )
        logits = self.scale * cosines
        if self.remedy == "balanced_softmax":
            logits = logits + (counts / counts.sum()).log()
        each = -logits.log_softmax(1)[torch.arange(len(y)), y]
        share = (1 / counts) / (1 / counts).sum() * len(counts)
        return (each * (share[y] if self.remedy == "balanced_ce" else 1)).mean()


@pytest.mark.parametrize("remedy", ["none", "balanced_softmax", "balanced_ce", "ldam"])
def test_a_run_equals_the_formula(remedy: Any) -> None:
    net = fitted(ImbalanceAwareJoint(remedy, scale=4.0))
    assert_close(net, JointByHand(net, remedy, 4.0))
    assert len(net.begins) == 3
    assert all(torch.equal(begin[name], value) for begin in net.begins for name, value in start().items())


def test_answers_are_cosines_without_priors() -> None:
    net, images = fitted(ImbalanceAwareJoint(scale=4.0)).eval(), torch.randn(3, 1, 4, 4).double()
    expected = 4 * F.cosine_similarity(net.body(images)[:, None], net.fc.weight[None], dim=2)
    torch.testing.assert_close(net(images), expected)


def test_effective_numbers_weigh_the_last_share_alone() -> None:
    first, second = (fitted(ImbalanceAwareJoint("ldam", deferred=share)) for share in (0.0, 0.5))
    assert not torch.equal(first.fc.weight, second.fc.weight)


def test_sessions_without_their_past_are_refused() -> None:
    with pytest.raises(ValueError, match=r"do not hold their past; use `Cumulative\(FewShot"):
        run(ImbalanceAwareJoint(), stream=make_stream(scenario=FewShot(2, 2, NOVEL)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"remedy": "luck"}, "`remedy` is 'luck'; give one of"),
        ({"scale": 0.0}, "`scale` is 0.0; give a number above 0"),
        ({"deferred": 2.0}, r"`deferred` is 2.0; give a number in \[0, 1\]"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImbalanceAwareJoint(**arguments)
