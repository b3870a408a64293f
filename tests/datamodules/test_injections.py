"""Items put into a stream are read in the batch that was planned, and nothing else is lost or changes its order."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_cl.datamodules import ContinualDataModule, DatasetSource, SampleIncremental
from lightning_cl.datamodules.injections import injected, injection_steps


def test_batches_hold_what_was_put_into_them() -> None:
    found = injected(list(range(20)), {1: ["a", "b"], 3: ["c"]}, batch_size=4)
    assert [found[at : at + 4] for at in range(0, 24, 4)] == [
        [0, 1, 2, 3], ["a", "b", 4, 5], [6, 7, 8, 9], ["c", 10, 11, 12], [13, 14, 15, 16], [17, 18, 19],
    ]  # fmt: skip
    assert injected([1, 2], {}, 4) == [1, 2]
    assert injection_steps(5, 3, 10) == [5, 15, 25]


def test_a_stream_reads_them_in_their_batch() -> None:
    steps = injection_steps(2, 3, 3)
    items = torch.tensor(injected(list(range(40)), {step: [-step, -step] for step in steps}, 4))
    data = TensorDataset(items, torch.zeros(len(items), dtype=torch.long))
    source = DatasetSource(data, data, classes=False)
    stream = ContinualDataModule(source, SampleIncremental(1, order="stream"), batch_size=4)
    stream.setup("fit")
    order = stream.layout.train_index[0]
    read = {at: set(items[order[4 * at : 4 * at + 4]].tolist()) for at in range(11)}
    assert [at for at, found in read.items() if min(found) < 0] == steps
    assert all(-step in read[step] for step in steps)


@pytest.mark.parametrize(
    ("batches", "message"),
    [({0: ["a"] * 5}, "5 items are to be put into batch 0"), ({3: ["a"]}, "those before it would have 9")],
)
def test_what_does_not_fit_is_refused(batches: dict[int, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        injected(list(range(9)), batches, batch_size=4)
    with pytest.raises(ValueError, match="at least 0"):
        injection_steps(-1, 2, 3)
