"""Every function against a loop typed from its formula, with stages and tasks from 1 as papers have them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_cl.metrics import functional as F

Cell = Callable[[int, int], float]


def a_k(R: Cell, k: int, n: list[int]) -> float:
    return sum(n[j - 1] * R(k, j) for j in range(1, k + 1)) / sum(n[:k])


def fm(R: Cell, k: int, last: int, seen: bool) -> float:
    total = 0.0
    for j in range(1, k):
        total += max(R(i, j) for i in range(j if seen else 1, last + 1)) - R(k, j)
    return total / (k - 1)


def one_step(R: Cell, k: int) -> float:  # a[i, j] from 0 in the formula
    total = 0.0
    for i in range(1, k):
        total += sum(R(i, j + 1) - R(i + 1, j + 1) for j in range(i)) / i
    return total / (k - 1)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Tensor, int, list[int], list[float]]:
    count = draw(st.integers(2, 7))
    unit = st.floats(0, 1, allow_subnormal=False)
    acc = torch.tensor(draw(st.lists(unit, min_size=count**2, max_size=count**2)), dtype=torch.float64)
    sizes = draw(st.lists(st.integers(1, 500), min_size=count, max_size=count))
    row = draw(st.lists(unit, min_size=count, max_size=count))
    return acc.view(count, count), draw(st.integers(2, count)), sizes, row


@settings(max_examples=60, deadline=None)
@given(runs())
def test_every_metric_is_its_formula(run: tuple[Tensor, int, list[int], list[float]]):
    acc, k, n, b = run
    even = [1] * len(n)

    def R(i: int, j: int) -> float:
        return acc[i - 1, j - 1].item()

    pairs = [(i, j) for i in range(1, k + 1) for j in range(1, i)]
    tasks = range(1, k + 1)
    expected = {
        F.average_accuracy(acc, k): a_k(R, k, even),
        F.average_accuracy(acc, k, sizes=n): a_k(R, k, n),
        F.average_incremental_accuracy(acc, k): sum(a_k(R, i, even) for i in tasks) / k,
        F.average_incremental_accuracy(acc, k, sizes=n, skip_first=True): sum(a_k(R, i, n) for i in tasks[1:])
        / (k - 1),
        F.learning_accuracy(acc, k): sum(R(j, j) for j in tasks) / k,
        F.backward_transfer(acc, k): sum(R(k, j) - R(j, j) for j in range(1, k)) / (k - 1),
        F.forgetting(acc, k): fm(R, k, k - 1, seen=True),
        F.forgetting(acc, k, from_first_seen=False): fm(R, k, k - 1, seen=False),
        F.forgetting(acc, k, variant="max_incl_last"): fm(R, k, k, seen=True),
        F.forgetting(acc, k, variant="max_incl_last", from_first_seen=False): fm(R, k, k, seen=False),
        F.forgetting(acc, k, variant="first_minus_last"): sum(R(j, j) - R(k, j) for j in range(1, k)) / (k - 1),
        F.forgetting(acc, k, variant="one_step"): one_step(R, k),
        F.forward_transfer(acc, b, k): sum(R(j - 1, j) - b[j - 1] for j in range(2, k + 1)) / (k - 1),
        F.intransigence(acc, b, k): b[k - 1] - R(k, k),
        F.matrix_accuracy_dr(acc, k): sum(R(i, j) for i in tasks for j in range(1, i + 1)) / (k * (k + 1) / 2),
        F.backward_transfer_dr(acc, k): sum(R(i, j) - R(j, j) for i, j in pairs) / len(pairs),
        F.forward_transfer_dr(acc, k): sum(R(j, i) for i, j in pairs) / len(pairs),
    }
    for value, formula in expected.items():
        assert value.dtype == torch.float64
        assert value.item() == pytest.approx(formula, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(runs())
def test_relations_between_metrics(run: tuple[Tensor, int, list[int], list[float]]):
    acc, k, n, _ = run
    bwt = F.backward_transfer(acc, k)
    together = F.learning_accuracy(acc, k) + bwt * (k - 1) / k
    torch.testing.assert_close(F.average_accuracy(acc, k), together)
    torch.testing.assert_close(F.forgetting(acc, k, variant="first_minus_last"), -bwt)
    torch.testing.assert_close(
        F.forgetting(acc, k, variant="max_incl_last"), F.task_forgetting(acc, k).clamp(min=0).mean()
    )
    torch.testing.assert_close(F.average_accuracy(acc, k, sizes=[7] * len(n)), F.average_accuracy(acc, k))
    assert F.forgetting(acc, k) >= F.forgetting(acc, k, variant="first_minus_last") - 1e-12


@settings(max_examples=30, deadline=None)
@given(runs())
def test_later_stages_do_not_change_an_earlier_value(run: tuple[Tensor, int, list[int], list[float]]):
    acc, k, n, b = run
    later = acc.clone()
    later[k:], later[:, k:] = float("nan"), float("nan")
    for metric in (F.average_accuracy, F.average_incremental_accuracy, F.learning_accuracy, F.backward_transfer):
        torch.testing.assert_close(metric(later, k), metric(acc, k))
    for variant in ("chaudhry", "max_incl_last", "first_minus_last", "one_step"):
        torch.testing.assert_close(F.forgetting(later, k, variant=variant), F.forgetting(acc, k, variant=variant))
    torch.testing.assert_close(F.average_accuracy(later, k, sizes=n), F.average_accuracy(acc, k, sizes=n))
    torch.testing.assert_close(F.forward_transfer(later, b, k), F.forward_transfer(acc, b, k))


@settings(max_examples=30, deadline=None)
@given(runs())
def test_of_losses_the_sign_is_turned(run: tuple[Tensor, int, list[int], list[float]]):
    acc, k, _, b = run
    loss, start = 5 - acc, [5 - value for value in b]
    torch.testing.assert_close(F.backward_transfer(loss, k, higher_is_better=False), F.backward_transfer(acc, k))
    torch.testing.assert_close(
        F.forward_transfer(loss, start, k, higher_is_better=False), F.forward_transfer(acc, b, k)
    )
    torch.testing.assert_close(F.intransigence(loss, start, k, higher_is_better=False), F.intransigence(acc, b, k))
    for variant in ("chaudhry", "max_incl_last", "first_minus_last", "one_step"):
        turned = F.forgetting(loss, k, variant=variant, higher_is_better=False)
        torch.testing.assert_close(turned, F.forgetting(acc, k, variant=variant))
