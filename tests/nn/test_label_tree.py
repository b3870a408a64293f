from __future__ import annotations

import torch

from lightning_cl.nn.label_tree import child_of_each, of_own_level, pseudo_labels

#: Classes 0 and 1 have the children 2, 3 and 4, 5, 6.
LEVELS = ((0, 1, 0, 0, 1, 1, 1), (-1, -1, 2, 3, 4, 5, 6))
LEVEL = torch.tensor([0, 0, 1, 1, 1, 1, 1])


def test_no_logit_of_another_level_competes():
    logits = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    masked = of_own_level(logits, torch.tensor([1, 4]), LEVEL)
    assert masked.isneginf().tolist() == [[False] * 2 + [True] * 5, [True] * 2 + [False] * 5]
    assert torch.equal(masked[0, :2], logits[0, :2])


def test_children_are_one_level_below():
    children = child_of_each(LEVELS, 7)
    assert [row.nonzero().flatten().tolist() for row in children] == [[2, 3], [4, 5, 6], [], [], [], [], []]
    deep = child_of_each(((0, 0, 0), (-1, 1, 1), (-1, -1, 2)), 3)
    assert deep.nonzero().tolist() == [[0, 1], [1, 2]]


def given(probabilities, parent, known=-1, threshold=0.75):
    logits = torch.log(torch.tensor([probabilities]))
    children = child_of_each(LEVELS, 7)[[parent]]
    label, confidence = pseudo_labels(logits, children, torch.tensor([known]), threshold)
    return int(label), round(float(confidence), 4)


def test_a_sure_answer_among_the_children_becomes_the_label_and_never_another_parents_child():
    assert given([0.1, 0.1, 0.02, 0.08, 0.7, 0.0, 0.0], parent=0) == (3, 0.8)  # 4 is most probable, but not its child
    assert given([0.1, 0.1, 0.05, 0.05, 0.7, 0.0, 0.0], parent=0) == (-1, 0.0)
    assert given([0.1, 0.1, 0.02, 0.08, 0.7, 0.0, 0.0], parent=0, threshold=1.01) == (-1, 0.0)
    assert given([0.1, 0.1, 0.02, 0.08, 0.7, 0.0, 0.0], parent=3) == (-1, 0.0)  # at the finest level


def test_one_child_alone_is_no_evidence():
    assert given([0.1, 0.1, 0.0, 0.8, 0.0, 0.0, 0.0], parent=0) == (-1, 0.0)


def test_a_label_stays_with_its_own_probability_until_it_falls_below_a_half():
    assert given([0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1], parent=0, known=2) == (2, 0.6)
    assert given([0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1], parent=0, known=3) == (-1, 0.0)
    assert given([0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1], parent=0, known=3) == (2, 0.8)
    assert given([0.1, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1], parent=0, known=2, threshold=1.01) == (-1, 0.0)
