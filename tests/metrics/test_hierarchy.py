from __future__ import annotations

import pytest
import torch

from lightning_cl.callbacks.evaluation.task_counts import best_of, competitors
from lightning_cl.datamodules import StreamInfo
from lightning_cl.metrics.functional import level_accuracy, summarise

LEVELS = ((0, 0, 1, 1), (0, 1, 2, 3))
#: Two superclasses (0, 1) with two classes each (2, 3 and 4, 5), all of them classes of the stream.
NODES = ((0, 1, 0, 0, 1, 1), (-1, -1, 2, 3, 4, 5))


def test_each_sample_counts_at_every_level_by_the_ancestors():
    torch.manual_seed(0)
    labels, answers = torch.randint(4, (2, 200))
    confusion = torch.zeros(4, 4, dtype=torch.long)
    confusion.index_put_((labels, answers), torch.tensor(1), accumulate=True)
    wanted = [(torch.tensor(level)[labels] == torch.tensor(level)[answers]).double().mean() for level in LEVELS]
    torch.testing.assert_close(level_accuracy(confusion, LEVELS), torch.stack(wanted))
    assert level_accuracy(confusion, LEVELS)[0] > level_accuracy(confusion, LEVELS)[1]


def test_with_labels_of_several_levels_each_counts_at_its_own():
    confusion = torch.zeros(6, 6, dtype=torch.long)
    confusion[0, 0], confusion[0, 1] = 3, 1
    confusion[2, 3] = 5  # the right superclass, but asked for a class
    assert level_accuracy(confusion, NODES).tolist() == [0.75, 0.0]
    confusion[2] = 0
    assert level_accuracy(confusion, NODES)[1].isnan()
    with pytest.raises(ValueError, match="do not agree"):
        level_accuracy(confusion, LEVELS)


def test_only_classes_of_a_samples_own_level_compete():
    info = StreamInfo(1, 6, tuple("abcdef"), (tuple(range(6)),), "f" * 64, levels=NODES)
    competing = competitors((0, 1, 2, 4), info, 7, torch.device("cpu"))
    logits = torch.tensor([[1.0, 2, 3, 9, 4, 9, 9]]).repeat(2, 1)
    assert best_of(logits, competing, torch.tensor([0, 2])).tolist() == [1, 4]
    plain = competitors((0, 1, 2, 4), StreamInfo(1, 6, tuple("abcdef"), ((0,),), "f" * 64), 7, torch.device("cpu"))
    assert best_of(logits, plain, torch.tensor([0, 2])).tolist() == [4, 4]


def test_the_summary_has_the_last_accuracy_of_each_level_and_its_mean():
    levels = torch.tensor([[0.5, torch.nan], [0.75, 0.25]])
    metrics = summarise([[1.0, torch.nan], [0.5, 0.5]], levels=levels)
    assert metrics["level_0/level_accuracy"] == 0.75
    assert metrics["level_0/average_level_accuracy"] == 0.625
    assert metrics["level_1/average_level_accuracy"] == 0.25
    assert summarise([[1.0]], levels=torch.full((1, 1), torch.nan))["level_0/level_accuracy"] is None
