"""Anytime metrics: examples by hand, loops typed from the definitions, and relations that must hold."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.metrics import functional as F

NAN = float("nan")
unit = st.floats(0, 1, allow_subnormal=False)
curves = st.lists(unit, min_size=1, max_size=30)


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-9)


# ---------------------------------------------------------------------- by hand


def test_area_under_the_curve_of_the_specification():
    assert F.a_auc([0.5, 0.6, 0.4, 0.5]).item() == near(0.5)
    assert F.a_auc([0.5, 0.6], widths=[300, 100]).item() == near(0.525)


def test_forgetting_per_class_of_si_blurry():
    assert F.f_last([[0.8, 0.0], [0.5, 0.9], [0.4, 0.6]]).item() == near(0.35)
    assert F.f_last([[0.8, NAN], [0.5, 0.9], [0.4, 0.6]]).item() == near(0.35)  # not exposed, not wrong


def test_classes_of_the_last_task_and_never_learned_ones_are_left_out_and_a_gain_counts():
    acc = [[0.5, 0.0, NAN], [0.7, 0.4, 0.9]]
    assert F.f_last(acc).item() == near(-0.2)


def test_average_anytime_accuracy():
    trace = [[0.4, NAN, NAN], [0.8, NAN, NAN], [0.6, 0.2, NAN], [0.5, 0.7, NAN]]  # the last task has no test data
    assert F.average_anytime_accuracy(trace).item() == near((0.4 + 0.8 + 0.4 + 0.6) / 4)


def test_prequential_accuracy_runs():
    assert F.prequential_accuracy([1, 3, 0], [4, 4, 2]).tolist() == near([0.25, 0.5, 0.4])


def test_after_task():
    assert F.a_avg([0.8, 0.5, 0.5]).item() == near(0.6)
    assert F.a_last([0.8, 0.5, 0.4]).item() == near(0.4)


def test_smoothing_is_that_of_the_published_code_and_off_by_default():
    exact = F.accuracy_of_counts([[80, 0]], [[100, 0]])
    assert exact[0, 0] == 0.8
    assert exact[0, 1].isnan()
    assert F.accuracy_of_counts([80], [100], smoothing=1e-5).item() == near(80 / 100.00001)


# ---------------------------------------------------------------------- loops from the definitions


def f_last_loop(a: list[list[float]]) -> float:  # zeros where a class was not exposed, as the published code has
    terms = []
    for c in range(len(a[0])):
        best = 0.0
        for t in range(len(a) - 1):
            best = max(best, a[t][c])
        if best > 0:
            terms.append(best - a[-1][c])
    return sum(terms) / len(terms) if terms else NAN


@st.composite
def class_accuracies(draw: st.DrawFn) -> list[list[float]]:
    tasks, classes = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    rows = [[draw(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])) for _ in range(classes)] for _ in range(tasks)]
    exposed_in = [draw(st.integers(0, tasks - 1)) for _ in range(classes)]
    return [[v if t >= exposed_in[c] else NAN for c, v in enumerate(row)] for t, row in enumerate(rows)]


@given(class_accuracies())
def test_forgetting_per_class_is_the_loop(acc):
    expected = f_last_loop([[0.0 if math.isnan(v) else v for v in row] for row in acc])
    assert F.f_last(acc).item() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(curves, st.integers(1, 1000))
def test_area_is_the_riemann_sum_of_its_definition(curve, step):
    expected = sum(f * step for f in curve) / sum(step for _ in curve)
    assert F.a_auc(curve).item() == near(expected)
    assert F.a_auc(curve, widths=[step] * len(curve)).item() == near(expected)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=20))
def test_prequential_accuracy_is_the_running_mean_over_samples(batches):
    correct, total = [min(pair) for pair in batches], [max(pair) for pair in batches]
    running = F.prequential_accuracy(correct, total).tolist()
    hits: list[float] = []
    for (right, count), value in zip(zip(correct, total, strict=True), running, strict=True):
        hits += [1.0] * right + [0.0] * (count - right)
        assert value == pytest.approx(sum(hits) / len(hits) if hits else NAN, nan_ok=True)


# ---------------------------------------------------------------------- relations


@given(unit, st.integers(1, 20), st.integers(2, 5), st.integers(1, 5))
def test_a_constant_accuracy_is_every_average_and_nothing_is_lost(value, points, tasks, classes):
    assert F.a_auc([value] * points).item() == near(value)
    assert F.a_avg([value] * tasks).item() == near(value)
    assert F.a_last([value] * tasks).item() == value
    assert F.average_anytime_accuracy([[value] * tasks] * points).item() == near(value)
    if value > 0:
        assert F.f_last([[value] * classes] * tasks).item() == 0


@given(curves)
def test_every_average_lies_within_the_curve(curve):
    assert min(curve) - 1e-12 <= F.a_auc(curve).item() <= max(curve) + 1e-12


def test_at_the_task_ends_only_it_is_the_average_incremental_accuracy():
    acc = torch.rand(4, 4, dtype=torch.float64)
    acc[torch.ones(4, 4).triu(1).bool()] = NAN
    assert F.average_anytime_accuracy(acc).item() == near(F.average_incremental_accuracy(acc).item())


# ---------------------------------------------------------------------- edges


def test_nothing_evaluated_is_nan():
    assert F.a_auc([]).isnan()
    assert F.a_avg([]).isnan()
    assert F.a_last([]).isnan()
    assert F.f_last(torch.zeros(0, 3)).isnan()
    assert F.f_last([[0.5, 0.5]]).isnan()  # one task: nothing can be forgotten
    assert F.f_last([[0.0], [0.4]]).isnan()  # never learned before the last task
    assert F.average_anytime_accuracy(torch.zeros(0, 3)).isnan()
    assert F.prequential_accuracy([], []).tolist() == []


def test_a_missing_value_is_never_skipped():
    assert F.a_auc([0.5, NAN]).isnan()
    assert F.average_anytime_accuracy([[0.5, NAN], [NAN, 0.5]]).isnan()
    assert F.f_last([[0.5], [NAN], [0.4]]).isnan()
    assert F.f_last([[0.5], [0.4], [NAN]]).isnan()


def test_wrong_input():
    with pytest.raises(ValueError, match="`accuracy` has shape"):
        F.a_auc([[0.5]])
    for widths in ([1], [-1, 1]):
        with pytest.raises(ValueError, match="samples it stands for"):
            F.a_auc([0.5, 0.5], widths)
    with pytest.raises(ValueError, match=r"must be \(P, T\)"):
        F.average_anytime_accuracy([0.5])
    with pytest.raises(ValueError, match=r"must be \(k, C\)"):
        F.f_last([0.5])
    with pytest.raises(ValueError, match="were the two exchanged"):
        F.prequential_accuracy([4], [3])
    with pytest.raises(ValueError, match="were the two exchanged"):
        F.accuracy_of_counts([1, 2], [3])
