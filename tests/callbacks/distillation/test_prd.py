"""PRD: a whole run against its three terms typed out, and what each of them reaches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import PRD
from lightning_cl.nn.losses import supervised_contrastive
from lightning_cl.nn.relations import relations

from ..by_hand import CLASSES, SIZE, ByHand, Net, assert_close, make_online, run, start

pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = {"least_area": 1.0, "flip": False, "jitter": 0.0, "gray": 0.0}  # views are the images themselves


def test_relations_are_of_features_as_they_are_and_prototypes_of_unit_length() -> None:
    features, prototypes = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    assert relations(features, prototypes).tolist() == [[3.0, 4.0]]


class Remembering(Net):
    """Keeps the parts of the method with which it begins."""

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        if not task.index:
            part = self.continual.parts["prd"]
            self.begun = [copy.deepcopy(part.project), part.prototypes.detach().clone()]


class PRDByHand(ByHand):
    """Two equal views; the old network and its prototypes are kept at every task's end."""

    def __init__(self, net: Remembering, axis: str) -> None:
        self.project, self.prototypes = net.begun[0], torch.nn.Parameter(net.begun[1])
        self.axis, self.known = axis, None
        self.optimizer = torch.optim.SGD([*self.project.parameters(), self.prototypes], lr=net.lr, momentum=0.5)
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        f, p = self.net.body(x).repeat(2, 1), self.prototypes
        y = y.repeat(2)
        loss = 0.1 / 0.07 * supervised_contrastive(self.project(f), y)
        loss = loss + 2.0 * (1 - F.cosine_similarity(f.detach(), p[y])).mean()
        if self.known is not None:
            net, old = self.known
            for task in range(self.task) if self.axis == "classes" else [slice(0, self.task)]:
                rows = slice(task * SIZE, (task + 1) * SIZE) if isinstance(task, int) else slice(0, self.task * SIZE)
                with torch.no_grad():
                    then = net.body(x).repeat(2, 1) @ (old[rows] / old[rows].norm(dim=1, keepdim=True)).T
                now = f @ (p[rows] / p[rows].norm(dim=1, keepdim=True)).T
                dim = 1 if self.axis == "classes" else 0
                q, log_p = then.softmax(dim), now.log_softmax(dim)
                loss = loss + 4.0 * (q * (q.log() - log_p)).sum(dim).mean()
        return loss + 0.0 * self.net(x[:1]).sum()

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.optimizer.step()

    def end(self, x: Tensor, y: Tensor) -> None:
        self.known = self.copy(), self.prototypes.detach().clone()


@pytest.mark.parametrize("axis", ["classes", "samples"])
def test_a_run_equals_the_formula(axis: Any) -> None:
    net = Remembering(0.05)
    net.load_state_dict(start())
    run(PRD(relation_axis=axis, width=5, reset_optimizer=False, **PLAIN), net=net)
    hand = PRDByHand(net, axis)
    assert_close(net, hand)
    torch.testing.assert_close(net.continual.parts["prd"].prototypes, hand.prototypes, rtol=1e-9, atol=1e-9)
    x = net.tasks[0][0][0]
    answers = net.eval()(x)
    torch.testing.assert_close(
        answers, torch.stack([F.cosine_similarity(net.body(x), p[None]) for p in hand.prototypes], 1)
    )
    assert answers.shape[1] == CLASSES


def test_a_stream_without_boundaries_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PRD takes its copy when a task ends, .* or `SCR`"):
        run(PRD(), stream=make_online())
