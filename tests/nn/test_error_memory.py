"""Error memories by hand: shares of the nearest, first in, first out, and buckets."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lightning_cl.nn.error_memory import NearestErrors, SketchedErrors, nearest_error


def test_two_stored_samples_by_hand() -> None:
    found = nearest_error(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.4], [-0.2]]), 2, 1.0)
    assert_close(found, torch.tensor([[0.238635]]), rtol=0, atol=1e-6)
    assert_close(0.5 * found, torch.tensor([[0.119318]]), rtol=0, atol=1e-6)


def test_nothing_is_expected_of_an_empty_memory() -> None:
    features = torch.randn(3, 4)
    for memory in (NearestErrors(4, 2, 5, 3, 0.1), SketchedErrors(4, 2, 3, 2, 0.1)):
        assert torch.equal(memory.read(features), torch.zeros(3, 2))


def test_the_oldest_make_room() -> None:
    memory = NearestErrors(3, 1, 4, 1, 0.1)
    axes = torch.eye(3)
    memory.write(axes, torch.tensor([[1.0], [2.0], [3.0]]))
    memory.write(2 * axes[:2], torch.tensor([[4.0], [5.0]]))  # the first one's place is taken
    assert int(memory.filled) == 5
    assert memory.errors.flatten().tolist() == [5.0, 2.0, 3.0, 4.0]
    memory.write(axes.repeat(3, 1), torch.arange(9.0)[:, None])  # more than it holds
    assert sorted(memory.errors.flatten().tolist()) == [5.0, 6.0, 7.0, 8.0]


def test_the_same_sample_with_a_constant_error_is_corrected_by_it() -> None:
    feature, error = torch.randn(1, 6), torch.tensor([[0.3, -0.3]])
    for memory in (NearestErrors(6, 2, 50, 10, 0.1), SketchedErrors(6, 2, 4, 3, 0.1)):
        for _ in range(60):
            memory.write(feature, error)
        assert_close(memory.read(feature), error, rtol=0, atol=1e-5)


def test_a_bucket_decays_with_every_sample() -> None:
    memory = SketchedErrors(2, 1, 1, 1, 0.25)
    feature = torch.tensor([[1.0, 2.0]])
    memory.write(feature.repeat(3, 1), torch.tensor([[1.0], [2.0], [4.0]]))
    sums, counts = (1 * 0.75 + 2) * 0.75 + 4, (1 * 0.75 + 1) * 0.75 + 1
    assert_close(memory.read(feature), torch.tensor([[sums / counts]]))
    assert_close(memory.read(-feature), torch.zeros(1, 1))  # the other bucket
