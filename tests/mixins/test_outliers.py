from __future__ import annotations

import pytest
import torch

from lightning_cl.callbacks import VirtualOutlierRegularizer
from lightning_cl.datamodules import Task
from lightning_cl.nn import coda_cosine_released
from lightning_cl.nn.outliers import share_of_step


def phases(task, epochs, **settings):
    phases, of = VirtualOutlierRegularizer(**settings).phases, Task(task, (0,), (0,), (0,), 0, epochs)
    return [phases.at(of, epoch)[0] for epoch in range(epochs)]


def test_a_task_warms_up_learns_and_ends_with_outliers():
    settings = {"warm_up_epochs": 1, "outlier_epochs": 2}
    assert phases(0, 5, **settings) == ["r", "r", "r", "o", "o"]  # the first task has nothing to warm up
    assert phases(3, 5, **settings) == ["w", "r", "r", "o", "o"]
    assert phases(3, 3, **settings) == ["w", "o", "o"]
    assert phases(1, 2, outlier_epochs=0) == ["r", "r"]


@pytest.mark.parametrize(("epochs", "outlier"), [(50, 10), (20, 4), (5, 1), (2, 1)])
def test_by_default_a_fifth_of_the_epochs_are_outlier_epochs(epochs, outlier):
    for task in (0, 1):
        assert phases(task, epochs) == ["r"] * (epochs - outlier) + ["o"] * outlier


def test_the_published_schedule_has_come_down_when_they_begin():
    assert phases(0, 50).index("o") == 40
    assert coda_cosine_released(40, 50) == pytest.approx(0.3269, abs=5e-5)


@pytest.mark.parametrize(
    ("features", "batch", "outliers", "steps", "size"),
    [(2400, 128, 800, 19, 42), (5000, 128, 400, 40, 10), (2400, 128, 7, 19, 1), (100, 128, 30, 1, 30)],
)
def test_each_step_gets_an_equal_share_in_order(features, batch, outliers, steps, size):
    assert -(-features // batch) == steps
    shares = [share_of_step(torch.arange(outliers), step, steps).tolist() for step in range(steps)]
    assert {len(share) for share in shares} == {size}
    assert [i for share in shares for i in share] == [i % outliers for i in range(size * steps)]
