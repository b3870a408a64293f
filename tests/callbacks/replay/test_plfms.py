from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import stream_info

from lightning_cl.callbacks import PLFMS
from lightning_cl.callbacks.replay.plfms import FlexibleMemory, taken_from_stream
from lightning_cl.datamodules import StreamInfo
from lightning_cl.nn.replay import SampleImportance

LEVELS = ((0, 1, 0, 0, 1, 1), (-1, -1, 2, 3, 4, 5))
INFO = StreamInfo(1, 6, tuple("abcdef"), (tuple(range(6)),), "f" * 64, levels=LEVELS)


def make(info=INFO):
    return FlexibleMemory(info, None, 1.0, 5, 0.75)


def test_new_classes_come_from_the_memory_and_known_ones_from_the_stream():
    policy = SampleImportance()
    policy.seen, policy.first = 50, torch.tensor([0, 30, -1])
    labels = torch.tensor([0, 1, 2, 2]).repeat(2000)[:4]
    drawn = torch.stack(
        [taken_from_stream(policy, labels, 300, 1.0, torch.Generator().manual_seed(s)) for s in range(4000)]
    )
    wanted = torch.tensor([50 / 300 * 3, (51 - 30) / 300 * 3, 0.0, 3 / 300])
    torch.testing.assert_close(drawn.double().mean(dim=0), wanted.double(), atol=0.03, rtol=0.0)
    assert not drawn[:, 2].any()  # the first of its class
    policy.seen = 150  # after N / K samples
    taken = taken_from_stream(policy, torch.tensor([0, 1]), 300, 1.0, torch.Generator())
    assert taken.tolist() == [True, True]
    assert policy.first.tolist() == [0, 30, -1]


def test_the_loss_is_that_of_each_level_and_of_pseudo_labels_by_their_confidence():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 6), torch.tensor([1, 4, 0])
    found = make().losses_of(logits, labels, torch.tensor([-1, -1, 3]), torch.tensor([0.9, 0.0, 0.8]))
    coarse, fine = logits[:, :2], logits[:, 2:]
    wanted = [
        F.cross_entropy(coarse[0], torch.tensor(1)),
        F.cross_entropy(fine[1], torch.tensor(2)),
        F.cross_entropy(coarse[2], torch.tensor(0)) + 0.8 * F.cross_entropy(fine[2], torch.tensor(1)),
    ]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_with_labels_of_one_level_it_is_plain_cross_entropy_without_pseudo_labels():
    for info in (stream_info(2, 6), StreamInfo(1, 6, tuple("abcdef"), ((0,),), "f" * 64, levels=((0,) * 6, range(6)))):
        part = make(info)
        logits, labels = torch.randn(4, 6), torch.tensor([0, 5, 2, 3])
        none = torch.full((4,), -1), torch.zeros(4)
        torch.testing.assert_close(
            part.losses_of(logits, labels, *none), F.cross_entropy(logits, labels, reduction="none")
        )
        assert not part.finer.any()


@pytest.mark.parametrize("wrong", [{"pace": 0}, {"period": 0}, {"stream_length": 0}, {"pseudo_threshold": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is 0"):
        PLFMS(**wrong)
