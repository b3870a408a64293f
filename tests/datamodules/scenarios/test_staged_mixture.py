"""Staged mixtures: exact sizes, the same kept samples in every stage, and the two ends of the share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import (
    ArraySource,
    ClassIncremental,
    ContinualDataModule,
    Forget,
    SiBlurry,
    StagedMixture,
    UnlabelledDomains,
)

LABELS = torch.arange(6).repeat_interleave(10)


def stages(share: float, of_stream: int = 0, **options) -> list[set[int]]:
    found = StagedMixture(ClassIncremental(num_tasks=3, class_order=range(6)), share, **options)
    return [set(task.tolist()) for task in found.train_tasks(LABELS, None, 6, of_stream)]


@given(st.sampled_from([0, 1 / 256, 0.1, 0.25, 0.5, 1]), st.integers(0, 99))
def test_a_stage_has_its_samples_and_the_same_share_of_earlier_ones(share: float, seed: int) -> None:
    count = {0: 0, 1 / 256: 0, 0.1: 2, 0.25: 5, 0.5: 10, 1: 20}[share]
    found, own = stages(share, seed), [set(range(20 * at, 20 * at + 20)) for at in range(3)]
    for at, stage in enumerate(found):
        assert own[at] <= stage
        for before in range(at):
            assert len(stage & own[before]) == count
        assert len(stage) == 20 + at * count
    assert found[1] & own[0] == found[2] & own[0]
    assert found == stages(share, seed)


def test_the_ends_of_the_share_and_the_seed() -> None:
    plain = ClassIncremental(num_tasks=3, class_order=range(6)).train_tasks(LABELS, None, 6, 0)
    assert stages(0) == [set(task.tolist()) for task in plain]
    assert stages(1) == [set(range(20)), set(range(40)), set(range(60))]
    assert stages(0.3, 1) != stages(0.3, 2)
    assert stages(0.3, 1, seed=5) == stages(0.3, 2, seed=5)


def test_evaluation_is_that_of_the_stages() -> None:
    images = torch.zeros(60, 4, 4, dtype=torch.uint8)
    scenario = StagedMixture(ClassIncremental(num_tasks=3, class_order=range(6)), 0.25)
    stream = ContinualDataModule(ArraySource((images, LABELS), (images, LABELS)), scenario)
    assert stream.info.num_tasks == 3
    assert [len(index) for index in stream.eval_data("val").index] == [20, 20, 20]
    assert stream.tasks[2].new_classes == (4, 5)
    assert any("25 %" in remark for remark in scenario.remarks)


@pytest.mark.parametrize("scenario", [SiBlurry(2), Forget([[1]]), UnlabelledDomains()])
def test_other_kinds_of_streams_are_refused(scenario) -> None:
    with pytest.raises(ValueError, match="cannot be mixed"):
        StagedMixture(scenario)


def test_a_share_is_one() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        StagedMixture(ClassIncremental(num_tasks=2), 1.5)
