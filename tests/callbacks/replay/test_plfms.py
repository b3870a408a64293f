from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import stream_info

from lightning_cl.callbacks import PLFMS
from lightning_cl.callbacks.replay.plfms import FlexibleMemory
from lightning_cl.datamodules import StreamInfo

LEVELS = ((0, 1, 0, 0, 1, 1), (-1, -1, 2, 3, 4, 5))
INFO = StreamInfo(1, 6, tuple("abcdef"), (tuple(range(6)),), "f" * 64, levels=LEVELS)


def make(info=INFO):
    return FlexibleMemory(info, None, 1.0, 5, 0.75)


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
