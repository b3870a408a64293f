"""Partners of incoming samples: who is compared with whom, and the loss typed out in loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lightning_cl.nn.partners import asymmetric_contrast, draw_partners


def test_partners_are_of_the_batch_s_classes_and_never_the_anchor_itself() -> None:
    incoming, held = torch.tensor([3, 3, 4, 5]), torch.tensor([0, 3, 1, 4, 0])
    pool, generator = torch.cat([held, incoming]), torch.Generator().manual_seed(0)
    seen: set[tuple[int, int]] = set()
    for _ in range(200):
        anchors, positives, negatives = draw_partners(incoming, held, generator)
        assert anchors.tolist() == [0, 1, 2]  # class 5 has no second sample
        assert torch.equal(pool[positives], incoming[anchors])
        assert (positives != len(held) + anchors).all()
        assert (pool[negatives] != incoming[anchors]).all()
        assert set(pool[negatives].tolist()) <= {3, 4, 5}  # no class of the memory alone
        seen |= set(zip(anchors.tolist(), positives.tolist(), strict=True))
    assert seen == {(0, 1), (0, 6), (1, 1), (1, 5), (2, 3)}
    assert len(draw_partners(torch.tensor([2, 2]), held, generator).anchors) == 0  # one class: no negative


def test_the_loss_against_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    anchors, pool = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (3, 6))
    labels, of_pool, terms = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1, 1, 1, 2]), []
    for a, y in zip(anchors, labels, strict=True):
        cosines = torch.stack([F.cosine_similarity(a, p, dim=0) / 0.1 for p in pool])
        log_p = [c - cosines.exp().sum().log() for c in cosines]
        terms.append(-torch.stack([p for p, label in zip(log_p, of_pool, strict=True) if label == y]).mean())
    torch.testing.assert_close(asymmetric_contrast(anchors, labels, pool, of_pool, 0.1), torch.stack(terms).mean())
