"""The stability gap: the worked example, loops typed from the definitions, and the invariants of the paper."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.metrics import functional as F

NAN = float("nan")
#: Task 0 in the first three evaluations, task 1 in the other four.
TRACE = torch.tensor(
    [[0.30, NAN], [0.70, NAN], [0.90, NAN], [0.50, 0.20], [0.40, 0.60], [0.60, 0.80], [0.70, 0.85]],
    dtype=torch.float64,
)
TASK = [0, 0, 0, 1, 1, 1, 1]


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-9)


# ---------------------------------------------------------------------- by hand


def test_worst_case_of_the_worked_example():
    assert F.min_acc(TRACE, TASK).item() == near(0.40)
    assert F.wc_acc(TRACE, TASK).item() == near(0.625)


@pytest.mark.parametrize(("window", "lost"), [(2, 0.20), (3, 0.25), (4, 0.25), (10, 0.25), (100, 0.25)])
def test_windowed_forgetting_of_the_worked_example(window, lost):
    assert F.windowed_forgetting(TRACE, window).item() == near(lost)


@pytest.mark.parametrize(("window", "gained"), [(2, 0.40), (3, 0.60), (4, 0.625), (10, 0.625), (100, 0.625)])
def test_windowed_plasticity_of_the_worked_example(window, gained):
    assert F.windowed_plasticity(TRACE, window).item() == near(gained)


def test_learning_curve_area_of_the_worked_example():
    assert F.learning_curve_area(TRACE, TASK, beta=1).item() == near((0.30 + 0.20) / 2)
    assert F.learning_curve_area(TRACE, TASK, beta=2).item() == near((0.50 + 0.40) / 2)
    whole = ((0.30 + 0.70 + 0.90) / 3 + (0.20 + 0.60 + 0.80 + 0.85) / 4) / 2
    assert F.learning_curve_area(TRACE, TASK).item() == near(whole)


def test_in_the_first_task_there_is_no_old_one():
    assert F.min_acc(TRACE[:3], TASK[:3]).isnan()
    assert F.wc_acc(TRACE[:3], TASK[:3]).item() == near(0.90)


def test_the_minimum_starts_strictly_after_the_task_s_own_training():
    trace = [[0.0, NAN], [0.9, NAN], [0.8, 0.1]]
    assert F.min_acc(trace, [0, 0, 1]).item() == near(0.8)


def test_a_task_without_evaluation_data_is_skipped():
    with_empty = torch.stack([TRACE[:, 0], torch.full((7,), NAN, dtype=torch.float64), TRACE[:, 1]], dim=1)
    task = [0, 0, 0, 2, 2, 2, 2]
    assert F.min_acc(with_empty, task).item() == near(0.40)
    assert F.wc_acc(with_empty, task).item() == near(0.625)
    assert F.windowed_forgetting(with_empty, 3).item() == near(0.25)
    assert F.learning_curve_area(with_empty, task, beta=1).item() == near(0.25)
    in_training = torch.cat([TRACE, torch.full((7, 1), NAN)], dim=1)
    assert F.wc_acc(in_training, [0, 0, 0, 1, 1, 1, 2]).item() == near((0.40 + 0.85) / 2)


def test_a_task_shorter_than_the_period_is_judged_from_its_first_evaluation_on():
    trace = [[0.9, NAN, NAN], [0.7, 0.5, 0.3], [0.8, 0.4, 0.6]]  # task 1 ended before it was evaluated
    assert F.min_acc(trace, [0, 2, 2]).item() == near((0.7 + 0.4) / 2)
    assert F.learning_curve_area(trace, [0, 2, 2]).item() == near((0.9 + 0.45) / 2)


# ---------------------------------------------------------------------- loops from the definitions


def min_acc_loop(a: list[list[float]], task: list[int]) -> list[float]:
    t, k = len(a) - 1, task[-1]
    return [min(a[n][i] for n in range(t + 1) if task[n] > i) for i in range(k) if not math.isnan(a[t][i])]


def change_loop(a: list[list[float]], window: int, sign: int) -> float:
    per_task = []
    for j in range(len(a[0])):
        known = [row[j] for row in a if not math.isnan(row[j])]
        if known:
            largest = 0.0
            for start in range(len(known)):
                inside = known[start : start + window]
                for m in range(len(inside)):
                    for n in range(m + 1, len(inside)):
                        largest = max(largest, sign * (inside[n] - inside[m]))
            per_task.append(largest)
    return sum(per_task) / len(per_task)


def area_loop(a: list[list[float]], task: list[int], beta: int) -> float:
    areas = []
    for i in range(len(a[0])):
        own = [a[n][i] for n in range(len(a)) if task[n] == i and not math.isnan(a[n][i])][:beta]
        if own:
            areas.append(sum(own) / len(own))
    return sum(areas) / len(areas) if areas else NAN


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[list[float]], list[int]]:
    """A trace and the task of each of its evaluations; tasks may be skipped, and some have no evaluation data."""
    tasks, points = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    task = sorted(draw(st.lists(st.integers(0, tasks - 1), min_size=points, max_size=points)))
    measured = [draw(st.booleans()) or t == task[0] for t in range(tasks)]
    unit = st.floats(0, 1, allow_subnormal=False)
    return [[draw(unit) if measured[t] and t <= now else NAN for t in range(tasks)] for now in task], task


@given(runs(), st.integers(2, 14), st.integers(1, 14))
def test_every_metric_is_its_definition(run, window, beta):
    a, task = run
    minima = min_acc_loop(a, task)
    mean = sum(minima) / len(minima) if minima else NAN
    assert F.min_acc(a, task).item() == pytest.approx(mean, nan_ok=True)
    now = a[-1][task[-1]]
    k = len(minima) + (not math.isnan(now))
    worst = mean if math.isnan(now) else now / k + (1 - 1 / k) * (mean if minima else 0.0)
    assert F.wc_acc(a, task).item() == pytest.approx(worst, nan_ok=True)
    assert F.windowed_forgetting(a, window).item() == pytest.approx(change_loop(a, window, -1), abs=1e-12)
    assert F.windowed_plasticity(a, window).item() == pytest.approx(change_loop(a, window, 1), abs=1e-12)
    assert F.learning_curve_area(a, task, beta).item() == pytest.approx(area_loop(a, task, beta), nan_ok=True)


@given(runs())
def test_invariants(run):
    a, task = torch.tensor(run[0], dtype=torch.float64), run[1]
    for n in range(2, len(task) + 1):
        if task[n - 2] == task[n - 1] and not F.min_acc(a[: n - 1], task[: n - 1]).isnan():
            assert F.min_acc(a[:n], task[:n]) <= F.min_acc(a[: n - 1], task[: n - 1])  # inside a task
    assert not F.wc_acc(a, task) > a[-1].nanmean() + 1e-12
    largest = 0.0
    for window in range(2, len(task) + 3):
        for metric in (F.windowed_forgetting, F.windowed_plasticity):
            assert 0 <= metric(a, window) <= 1
        assert F.windowed_forgetting(a, window) >= largest
        largest = F.windowed_forgetting(a, window).item()
    column = a[:, task[0] : task[0] + 1]  # evaluated from the start
    grown = [F.windowed_plasticity(column[:n], 3).item() for n in range(1, len(task) + 1)]
    assert grown == sorted(grown)
    assert F.windowed_plasticity(column, 3) == F.windowed_forgetting(column.flip(0), 3)


def test_a_constant_trace_has_no_gap():
    trace = torch.full((9, 3), 0.4, dtype=torch.float64)
    assert F.windowed_forgetting(trace, 10) == F.windowed_plasticity(trace, 10) == 0
    assert F.min_acc(trace, [0, 0, 0, 1, 1, 1, 2, 2, 2]).item() == near(0.4)


# ---------------------------------------------------------------------- edges


def test_nothing_evaluated_is_nan():
    nothing = torch.zeros(0, 2)
    assert F.min_acc(nothing, []).isnan()
    assert F.wc_acc(nothing, []).isnan()
    assert F.windowed_forgetting(nothing, 2).isnan()
    assert F.windowed_plasticity(nothing, 2).isnan()
    assert F.learning_curve_area(nothing, []).isnan()


def test_a_missing_value_is_never_skipped():
    trace = TRACE.clone()
    trace[4, 0] = NAN
    assert F.min_acc(trace, TASK).isnan()
    assert F.wc_acc(trace, TASK).isnan()
    assert F.windowed_forgetting(trace, 3).isnan()
    trace = TRACE.clone()
    trace[1, 0] = NAN
    assert F.learning_curve_area(trace, TASK).isnan()


def test_wrong_input():
    with pytest.raises(ValueError, match=r"must be \(P, T\)"):
        F.min_acc([0.5], [0])
    with pytest.raises(ValueError, match="one for each evaluation"):
        F.min_acc([[0.5]], [0, 1])
    with pytest.raises(ValueError, match="goes back"):
        F.wc_acc([[0.5, 0.5], [0.5, 0.5]], [1, 0])
    with pytest.raises(ValueError, match=r"has tasks 0\.\.0"):
        F.learning_curve_area([[0.5]], [1])
    with pytest.raises(ValueError, match="`window` is 1"):
        F.windowed_forgetting([[0.5]], 1)
    with pytest.raises(ValueError, match="`beta` is 0"):
        F.learning_curve_area([[0.5]], [0], beta=0)
