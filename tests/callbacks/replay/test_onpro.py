"""OnPro: a whole run against its four terms typed out, with the mixtures that were drawn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import OnPro
from lightning_cl.callbacks.replay import onpro
from lightning_cl.nn.online_prototypes import class_contrast, draw_mixture, instance_contrast, prototype_contrast

from ..by_hand import CLASSES, ByHand, Net, assert_close, run, start

pytestmark = pytest.mark.filterwarnings("ignore")
WIDTH, PLAIN = 9, {"least_area": 1.0, "flip": False, "gray": 0.0}  # as wide as the features: the slice is all of them


class Remembering(Net):
    """Keeps the projection with which it begins."""

    def on_task_start(self, task: Any) -> None:
        super().on_task_start(task)
        if not task.index:
            self.begun = [copy.deepcopy(self.continual.parts["onpro"].project)]


class OnProByHand(ByHand):
    """Two equal views, each turned by a quarter, too."""

    def __init__(self, net: Remembering, reads: list[Any], mixtures: list[Any]) -> None:
        self.reads, self.mixtures, self.project = list(reads), list(mixtures), net.begun[0]
        self.first, self.prototypes = True, {}
        self.optimizer = torch.optim.SGD(self.project.parameters(), lr=net.lr, momentum=0.5)
        super().__init__(net, seen=True, fresh=False)

    def compared(self, x: Tensor, y: Tensor, of_class: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        turned = torch.cat([x, x.rot90(1, (2, 3))]).repeat(2, 1, 1, 1)
        features = self.net.body(turned)
        g, f = F.normalize(self.project(features), dim=1), F.normalize(features, dim=1)
        classes = sorted(set(of_class.tolist()))
        means = torch.stack([g[: len(x)][of_class == c].mean(0) for c in classes])
        self.found = dict(zip(classes, means.detach(), strict=True))
        labels = torch.cat([y, y + CLASSES]).repeat(2)
        return 0.5 * (g @ g.T + g @ f.T) / 0.07, labels, prototype_contrast(means, means)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        similarity, labels, apart = self.compared(x, y, y)
        loss = instance_contrast(similarity, labels) + apart
        if self.first:  # nothing is remembered yet
            self.first = False
            return loss + self.cross_entropy(x, y)
        prototypes, (_, _, share) = self.mixtures.pop(0)
        if prototypes is not None:
            assert prototypes[1].tolist() == sorted(self.prototypes)
            torch.testing.assert_close(
                prototypes[0], torch.stack([self.prototypes[c] for c in sorted(self.prototypes)])
            )
        a = self.reads.pop(0)
        b = self.reads.pop(0) if share.any() else a
        weight = share.view(-1, 1, 1, 1)
        x = (1 - weight) * a.inputs + weight * b.inputs
        z = self.net(x)[:, self.classes]
        labelled = [F.cross_entropy(z, part.labels, reduction="none") for part in (a, b)]
        mixed, dominant = (1 - share) * a.labels + share * b.labels, torch.where(share > 0.5, b.labels, a.labels)
        similarity, labels, apart = self.compared(x, mixed, dominant)
        self.prototypes = self.found
        everyone = torch.ones(len(labels), dtype=torch.bool)
        loss = loss + ((1 - share) * labelled[0] + share * labelled[1]).mean()
        return loss + class_contrast(similarity, labels, everyone) + apart

    def stepped(self, before: dict[str, Tensor]) -> None:
        self.optimizer.step()


def test_a_run_equals_the_formula(reads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    mixtures: list[Any] = []

    def recorded(held: Tensor, prototypes: Any, *others: Any) -> Any:
        mixtures.append((prototypes, draw_mixture(held, prototypes, *others)))
        return mixtures[-1][1]

    monkeypatch.setattr(onpro, "draw_mixture", recorded)
    net = Remembering(0.01)
    net.load_state_dict(start())
    method = OnPro(30, 8, mixup=0.7, random=0.5, similarity=0.5, rotations=2, width=WIDTH, **PLAIN)
    run(method, net=net)
    assert any(known is not None for known, _ in mixtures)
    hand = OnProByHand(net, reads, mixtures)
    assert_close(net, hand, 1e-8)
    assert not hand.reads + hand.mixtures


@pytest.mark.parametrize("kind", ["none", "dominant"])
def test_mixed_samples_may_be_left_out_or_taken_for_their_larger_part(kind: Any) -> None:
    options = {"mixup": 1.0, "random": 1.0, "rotations": 1, "width": 4}
    runs = [run(OnPro(30, 8, mixed_positive=k, **options), lr=0.01) for k in ("self", kind)]
    assert not torch.equal(runs[0].body[1].weight, runs[1].body[1].weight)


def test_more_turns_than_an_image_has_are_refused() -> None:
    with pytest.raises(ValueError, match="`rotations` is 5, but an image has 4 quarter turns; give 1 to 4"):
        OnPro(rotations=5)
