"""The metric classes give what the functions give on the matrix of the same counts."""

import pytest
import torch

from lightning_cl.metrics import (
    AverageAccuracy,
    AverageIncrementalAccuracy,
    BackwardTransfer,
    Forgetting,
    ForwardTransfer,
    LearningAccuracy,
)

SIZES = [60, 20, 20]
ACC = [[0.80, 0.10, 0.05], [0.90, 0.80, 0.20], [0.60, 0.85, 0.85]]  # whole numbers of samples
KINDS = {
    "acc": (lambda: AverageAccuracy(3), 0.766667),
    "micro": (lambda: AverageAccuracy(3, micro=True), 0.70),
    "aia": (lambda: AverageIncrementalAccuracy(3), (0.80 + 0.85 + 0.766667) / 3),
    "aia, no first": (lambda: AverageIncrementalAccuracy(3, skip_first=True), (0.85 + 0.766667) / 2),
    "aia, micro": (lambda: AverageIncrementalAccuracy(3, micro=True), (0.80 + 0.875 + 0.70) / 3),
    "la": (lambda: LearningAccuracy(3), 0.816667),
    "bwt": (lambda: BackwardTransfer(3), -0.075),
    "fm": (lambda: Forgetting(3), 0.125),
    "fm, last": (lambda: Forgetting(3, variant="max_incl_last"), 0.15),
    "fm, step": (lambda: Forgetting(3, variant="one_step"), (-0.10 + (0.30 - 0.05) / 2) / 2),
    "fwt": (lambda: ForwardTransfer(3, baseline=[0.10, 0.08, 0.06]), 0.08),
}


def feed(metric, stages):
    for stage in stages:
        for task, size in enumerate(SIZES):
            hits = (torch.arange(size) < round(ACC[stage][task] * size)).long()
            metric.update(stage, hits, torch.ones(size, dtype=torch.long), task)


@pytest.mark.parametrize("kind", KINDS)
def test_value_on_a_known_matrix(kind):
    make, expected = KINDS[kind]
    metric = make()
    feed(metric, range(3))
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)
    assert metric.compute().dtype == torch.float64
    assert metric.compute().ndim == 0


def test_a_stream_that_is_not_over_has_the_value_of_its_last_stage():
    metrics = [AverageAccuracy(3), Forgetting(3), ForwardTransfer(3, baseline=[0.10, 0.08, 0.06])]
    for metric in metrics:
        feed(metric, range(2))
    assert [m.compute().item() for m in metrics] == pytest.approx([0.85, -0.10, 0.02])


def test_one_task_has_no_forgetting():
    for metric in (Forgetting(3), BackwardTransfer(3), ForwardTransfer(3, baseline=[0.0, 0.0, 0.0])):
        feed(metric, [0])
        assert metric.compute().isnan()


def test_direction_is_said():
    assert AverageAccuracy(2).higher_is_better
    assert BackwardTransfer(2).higher_is_better
    assert Forgetting(2).higher_is_better is False


@pytest.mark.parametrize("kind", KINDS)
def test_plot_is_the_value_after_every_task(kind):
    metric = KINDS[kind][0]()
    feed(metric, range(3))
    _, ax = metric.plot()
    drawn = ax.lines[0].get_ydata()
    assert len(drawn) == 3
    assert drawn[-1] == pytest.approx(metric.compute().item())
    _, given = metric.plot([torch.tensor(0.5), torch.tensor(0.25)])
    assert list(given.lines[0].get_ydata()) == [0.5, 0.25]


def test_wrong_arguments():
    with pytest.raises(ValueError, match="'one_step'"):
        Forgetting(3, variant="best")
    with pytest.raises(ValueError, match="`baseline` has shape"):
        ForwardTransfer(3, baseline=[0.1])
