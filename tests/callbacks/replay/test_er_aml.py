"""ER-AML: what a step's gradient reaches, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cl.callbacks import ERAML
from lightning_cl.callbacks.replay import er_aml
from lightning_cl.nn.partners import asymmetric_contrast, draw_partners

from ..by_hand import ByHand, Net, assert_close, run

pytestmark = pytest.mark.filterwarnings("ignore")


class ERAMLByHand(ByHand):
    """Cross-entropy at first; then partners, whose places were recorded, and a batch of the memory."""

    def __init__(self, net: Net, reads: list[Any], draws: list[Any], partners: list[Any]) -> None:
        self.reads, self.draws, self.partners, self.first = list(reads), list(draws), list(partners), True
        super().__init__(net, seen=True, fresh=False)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.first:  # the memory is empty
            self.first = False
            present = sorted(set(y.tolist()))
            return F.cross_entropy(self.net(x)[:, present], torch.tensor([present.index(c) for c in y.tolist()]))
        (anchors, *places), held = self.partners.pop(0)
        chosen = torch.cat(places)
        kept = chosen[chosen < held].unique().tolist()
        read = self.reads.pop(0) if kept else None
        rows = [read.inputs[kept.index(p)] if p < held else x[p - held] for p in chosen.tolist()]
        labels = [int(read.labels[kept.index(p)]) if p < held else int(y[p - held]) for p in chosen.tolist()]
        term = 0.0
        if len(anchors):
            pool = self.net.body(torch.stack(rows))
            term = (
                0.1 / 0.07 * asymmetric_contrast(self.net.body(x)[anchors], y[anchors], pool, torch.tensor(labels), 0.1)
            )
        drawn = self.draws.pop(0)
        return term + F.cross_entropy(self.net(drawn.inputs)[:, self.classes], drawn.labels)


def test_a_run_equals_the_formula(reads: list[Any], draws: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    partners: list[Any] = []

    def recorded(incoming: Tensor, held: Tensor, generator: torch.Generator) -> Any:
        partners.append((draw_partners(incoming, held, generator), len(held)))
        return partners[-1][0]

    monkeypatch.setattr(er_aml, "draw_partners", recorded)
    net = run(ERAML(30, 6), lr=0.05)
    hand = ERAMLByHand(net, reads, draws, partners)
    assert_close(net, hand)
    assert not hand.reads + hand.partners + hand.draws
