"""Numbers of a matrix of any metric, against sums that are written out and against those of accuracies."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cl.metrics.functional import summarise
from lightning_cl.metrics.functional.any_metric import metric_definitions, summarise_metric

NAN = math.nan
ERRORS = [[2.0, NAN, NAN], [3.0, 1.0, NAN], [5.0, 2.5, 0.5]]


def test_errors_that_rise_are_forgetting():
    found = summarise_metric(ERRORS, higher_is_better=False)
    assert found == {
        "average_value": pytest.approx(8.0 / 3),
        "average_incremental_value": pytest.approx((2.0 + 2.0 + 8.0 / 3) / 3),
        "learning_value": pytest.approx(3.5 / 3),
        "backward_transfer": pytest.approx(-((5.0 - 2.0) + (2.5 - 1.0)) / 2),
        "forgetting": pytest.approx((3.0 + 1.5) / 2),
        "forgetting_max_incl_last": pytest.approx((3.0 + 1.5) / 2),
        "forgetting_one_step": pytest.approx((1.0 + (2.0 + 1.5) / 2) / 2),
        "relative_forgetting": pytest.approx((3.0 / 2.0 + 1.5 / 1.0) / 2),
    }


def test_an_error_that_falls_is_no_forgetting_and_a_head_start_is_positive():
    better = [[2.0, 4.0], [1.0, 1.0]]
    found = summarise_metric(better, False, baseline=[5.0, 6.0])
    assert (found["forgetting"], found["backward_transfer"]) == (-1.0, 1.0)
    assert found["forward_transfer"] == 6.0 - 4.0


def test_of_a_higher_is_better_metric_the_numbers_are_those_of_accuracies():
    torch.manual_seed(0)
    matrix, sizes = torch.rand(4, 4).double(), torch.tensor([3, 1, 0, 2])
    found, known = summarise_metric(matrix, True, sizes), summarise(matrix, sizes=sizes)
    assert found == {name: pytest.approx(known[f"class_il/{name.replace('value', 'accuracy')}"]) for name in found}


@pytest.mark.parametrize("higher", [True, False])
def test_names_are_always_the_same_and_defined(higher):
    assert set(summarise_metric([[NAN]], higher, baseline=[0.0])) == set(metric_definitions(higher))
    assert summarise_metric([[NAN]], higher)["average_value"] is None
    assert summarise_metric([[1.5]], higher)["forgetting"] is None
