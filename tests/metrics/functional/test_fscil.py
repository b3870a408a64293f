"""Few-shot metrics against the worked example, published series and loops typed from the definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_cl.metrics import functional as F

R = [[0.80, 0.10, 0.05], [0.90, 0.80, 0.20], [0.60, 0.84, 0.85]]
SIZES = [60, 20, 20]


def test_the_worked_example():
    assert_close(F.harmonic_mean(R)[1:], torch.tensor([0.847059, 0.701730], dtype=torch.float64), rtol=0, atol=1e-6)
    assert math.isnan(F.harmonic_mean(R)[0])
    assert float(F.average_harmonic_mean(R)) == pytest.approx(0.774394, abs=1e-6)
    assert float(F.performance_drop(R, sizes=SIZES)) == pytest.approx(0.102)
    assert float(F.performance_drop(R)) == pytest.approx(0.036667, abs=1e-6)
    expected = torch.tensor([0.548333, 0.804444, 0.796389, 0.791000], dtype=torch.float64)
    assert_close(F.generalised_accuracy(R, 3), expected, rtol=0, atol=1e-6)
    assert float(F.generalised_accuracy_area(R, 3)) == pytest.approx(0.756833, abs=1e-6)


SERIES = {
    "CIFAR-100": ([82.8, 77.85, 73.69, 69.67, 66.89, 63.66, 61.48, 59.74, 57.51], 25.29, 68.1433),
    "CPE-CLIP": ([87.83, 85.86, 84.93, 82.85, 82.64, 82.42, 82.27, 81.44, 80.52], 7.31, 83.42),
}


@pytest.mark.parametrize("name", SERIES)
def test_published_series(name):
    series, drop, mean = SERIES[name]
    acc = torch.tensor(series, dtype=torch.float64)[:, None].expand(-1, len(series)) / 100  # equal in all tasks
    sizes = [6000, *[500] * (len(series) - 1)]
    assert 100 * float(F.performance_drop(acc, sizes=sizes)) == pytest.approx(drop, abs=0.005)
    assert 100 * float(F.average_incremental_accuracy(acc, sizes=sizes)) == pytest.approx(mean, abs=0.006)
    # weighting sessions by their samples, as one official code does, is another number
    counts = torch.tensor(sizes, dtype=torch.float64).cumsum(0)
    weighted = float((acc[:, 0] * counts).sum() / counts.sum())
    assert abs(100 * weighted - mean) > 0.3


accuracies = st.integers(1, 5).flatmap(
    lambda t: st.tuples(
        st.lists(st.lists(st.floats(0, 1), min_size=t, max_size=t), min_size=t, max_size=t),
        st.lists(st.integers(1, 9), min_size=t, max_size=t),
    )
)


@given(accuracies)
def test_against_loops_over_samples(drawn):
    acc, sizes = drawn
    for s in range(len(acc)):
        base, novel = acc[s][0], math.nan
        if s:
            novel = sum(acc[s][j] * sizes[j] for j in range(1, s + 1)) / sum(sizes[1 : s + 1])
        hm = math.nan if s == 0 else (0.0 if base + novel == 0 else 2 * base * novel / (base + novel))
        k = s + 1
        pairs = [
            (F.base_accuracy(acc, k)[-1], base),
            (F.novel_accuracy(acc, k, sizes=sizes)[-1], novel),
            (F.harmonic_mean(acc, k, sizes=sizes)[-1], hm),
        ]
        for actual, expected in pairs:
            assert float(actual) == pytest.approx(expected, nan_ok=True, abs=1e-12)


@given(accuracies, st.integers(1, 4))
def test_generalised_accuracy_against_its_definition(drawn, ratio):
    acc, _ = drawn
    expected = []
    for alpha in range(ratio + 1):
        stages = []
        for i, row in enumerate(acc):
            if i == 0:
                stages.append(row[0] if alpha else 0.0)
            else:
                stages.append((alpha * row[0] + sum(row[1 : i + 1])) / (i + alpha))
        expected.append(sum(stages) / len(stages))
    assert F.generalised_accuracy(acc, ratio).tolist() == pytest.approx(expected, abs=1e-12)


def test_one_session_has_no_novel_class():
    values = F.session_summary([[0.5]], 1, [10])
    assert float(values["base_accuracy"]) == 0.5
    assert all(math.isnan(values[n]) for n in ("novel_accuracy", "harmonic_mean", "performance_drop"))


def test_the_report_of_a_few_shot_stream(tmp_path):
    from lightning_cl.metrics import ContinualReport
    from lightning_cl.reports.report import read
    from lightning_cl.reports.tables import summary_lines

    report = ContinualReport(class_il=torch.tensor(R), sizes=torch.tensor(SIZES), few_shot=True)
    assert report.metrics["few_shot/performance_drop"] == pytest.approx(0.102)
    assert report.metrics["few_shot/harmonic_mean"] == pytest.approx(0.701730, abs=1e-6)
    assert "Few-shot: drop 10.2, base 60.0, novel 84.5, harmonic mean 70.2, average session 79.1" in "\n".join(
        summary_lines(report)
    )
    again = read(report.write(tmp_path))
    assert again.few_shot
    assert again.metrics == report.metrics
    assert "harmonic_mean" in again.to_dict()["definitions"]
    plain = ContinualReport(class_il=torch.tensor(R), sizes=torch.tensor(SIZES))
    assert not any(name.startswith("few_shot") for name in plain.metrics)


def test_a_ratio_below_one_is_refused():
    with pytest.raises(ValueError, match="`ratio` is 0"):
        F.generalised_accuracy(R, 0)
