"""Data that is only read from its start: every sample once, in order, from any position."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import IterableDataset

from lightning_cl.callbacks import ExperienceReplay
from lightning_cl.datamodules import (
    ContinualDataModule,
    DomainIncremental,
    IterableSource,
    Joint,
    SampleIncremental,
)

TEST = [(torch.tensor([float(i)]), float(i)) for i in range(4)]


class Numbers(IterableDataset):
    """``0 .. n - 1``, and how many were read."""

    def __init__(self, n: int = 20) -> None:
        self.n, self.read = n, 0

    def __iter__(self):
        for i in range(self.n):
            self.read += 1
            yield torch.tensor([float(i)]), float(i)


class Skipping(Numbers):
    def skip(self, count):
        return [(torch.tensor([float(i)]), float(i)) for i in range(count, self.n)]


def numbers(batches):
    return [batch[1].tolist() for batch in batches]


def source(data=None, **options):
    made = IterableSource(data or Numbers(), 20, TEST, **options)
    made.setup()
    return made


def test_reading_on_reads_each_sample_once_and_recent_ones_stay():
    data = Numbers()
    made = source(data, window=3)
    assert [made.item("train", i)[1] for i in (0, 1, 4, 2, 3, 4, 7)] == [0, 1, 4, 2, 3, 4, 7]
    assert data.read == 8
    assert made.item("train", 2)[1] == 2  # behind the window: begun anew
    assert data.read == 8 + 3
    assert pickle.loads(pickle.dumps(made)).item("train", 5)[1] == 5


@pytest.mark.parametrize("make", [Numbers, Skipping, lambda: lambda: Numbers()])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_goes_through_it_in_order_and_goes_on_where_it_was(make, num_workers):
    def loader():
        scenario = SampleIncremental(1, order="stream")
        stream = ContinualDataModule(source(make()), scenario, batch_size=6, num_workers=num_workers)
        stream.setup()
        return stream.train_dataloader()

    whole = numbers(loader())
    assert [i for batch in whole for i in batch] == list(range(20))
    again = loader()
    again.load_state_dict({**again.state_dict(), "epoch": 0, "batch": 2})
    assert numbers(again) == whole[2:]


def test_batches_that_come_again_are_kept():
    data = Numbers()
    stream = ContinualDataModule(source(data), SampleIncremental(2, order="stream"), batch_size=5, updates_per_batch=3)
    stream.setup()
    stream.last_task = 0
    assert numbers(stream.train_dataloader()) == [list(range(5))] * 3 + [list(range(5, 10))] * 3
    assert data.read == 10


def test_known_classes_make_an_online_stream_of_classes():
    labels = [i // 10 for i in range(20)]
    made = source(train_targets=labels, test_targets=[0, 0, 1, 1])
    stream = ContinualDataModule(made, SampleIncremental(2, order="stream"), batch_size=5)
    stream.setup()
    assert stream.info.classes_per_task == ((0,), (1,))


@pytest.mark.parametrize(
    ("scenario", "options", "words"),
    [
        (SampleIncremental(2), {}, "IterableSource is read from its start to its end, but SampleIncremental sorts"),
        (Joint(), {}, "but Joint sorts samples by position; use `SampleIncremental"),
        (SampleIncremental(2, order="stream"), {"val_split": 0.5}, "but `val_split=0.5` picks samples by position"),
    ],
)
def test_scenarios_that_sort_are_refused(scenario, options, words):
    with pytest.raises(ValueError, match=words):
        ContinualDataModule(source(), scenario, **options).setup()


def test_domains_are_asked_for_as_ever():
    with pytest.raises(ValueError, match="`DomainIncremental` needs a domain per sample"):
        ContinualDataModule(source(), DomainIncremental()).setup()


def test_too_few_samples_and_bad_arguments():
    made = IterableSource(Numbers(7), 20, TEST)
    made.setup()
    with pytest.raises(ValueError, match="the training data ended after 7 samples, but `num_samples` is 20"):
        made.item("train", 9)
    with pytest.raises(ValueError, match="`num_samples` is 0"):
        IterableSource(Numbers(), 0, TEST)
    with pytest.raises(ValueError, match="targets are given for one split only"):
        IterableSource(Numbers(), 20, TEST, train_targets=[0] * 20)
    with pytest.raises(ValueError, match="there are 20 train samples but 3 targets"):
        source(train_targets=[0] * 3, test_targets=[0] * 4)


def test_a_memory_of_positions_is_refused():
    class FakeStream:
        source = IterableSource(Numbers(), 20, TEST)

    class FakeTrainer:
        callbacks = ()

    with pytest.raises(ValueError, match=r"IterableSource is read from its start to its end; set `store=\"sample\"`"):
        ExperienceReplay()._check_company(FakeTrainer(), FakeStream())
