"""What is not defined is NaN, what is wrong raises, and nothing is skipped in silence."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_cl.metrics import functional as F

NAN = float("nan")
VARIANTS = ("chaudhry", "max_incl_last", "first_minus_last", "one_step")
OF_MATRIX = [
    F.average_accuracy,
    F.average_incremental_accuracy,
    F.learning_accuracy,
    F.backward_transfer,
    F.forgetting,
    F.relative_forgetting,
    F.knowledge_rate,
    F.matrix_accuracy_dr,
    F.backward_transfer_dr,
    F.remembering_dr,
    F.positive_backward_transfer_dr,
    F.forward_transfer_dr,
]


def example() -> Tensor:
    return torch.tensor([[0.80, 0.10, 0.05], [0.90, 0.80, 0.20], [0.60, 0.84, 0.85]], dtype=torch.float64)


def test_one_task_has_accuracy_and_no_transfer():
    acc = torch.tensor([[0.7]], dtype=torch.float64)
    for metric in (F.average_accuracy, F.average_incremental_accuracy, F.learning_accuracy, F.matrix_accuracy_dr):
        assert metric(acc).item() == 0.7
    assert F.knowledge_rate(acc).item() == 1
    undefined = [F.forgetting(acc, variant=variant) for variant in VARIANTS]
    undefined += [F.backward_transfer(acc), F.forward_transfer(acc, [0.1]), F.relative_forgetting(acc)]
    undefined += [F.backward_transfer_dr(acc), F.remembering_dr(acc), F.forward_transfer_dr(acc)]
    undefined += [F.average_incremental_accuracy(acc, skip_first=True), F.positive_backward_transfer_dr(acc)]
    assert all(value.isnan() for value in undefined)


def test_first_stage_of_a_longer_stream_has_no_forgetting():
    assert F.average_accuracy(example(), 1).item() == 0.8
    assert F.backward_transfer(example(), 1).isnan()
    assert all(F.forgetting(example(), 1, variant=variant).isnan() for variant in VARIANTS)


def test_nothing_lost_is_zero():
    acc = torch.ones(4, 4).tril()
    assert F.backward_transfer(acc) == 0
    assert all(F.forgetting(acc, variant=variant) == 0 for variant in VARIANTS)
    assert F.remembering_dr(acc) == 1


@pytest.mark.parametrize("metric", OF_MATRIX)
def test_a_missing_cell_is_never_skipped(metric):
    acc = example()
    unlike = {F.forward_transfer_dr: (1, 2), F.average_accuracy: (2, 0)}
    acc[unlike.get(metric, (0, 0))] = NAN
    assert metric(acc).isnan()


def test_missing_last_stage_or_step_is_never_skipped():
    acc = example()
    acc[2, 0] = NAN
    assert all(F.forgetting(acc, variant=variant).isnan() for variant in VARIANTS)
    acc = example()
    acc[0, 1] = NAN
    assert F.forward_transfer(acc, [0, 0, 0]).isnan()


def test_unmeasured_zero_shot_cells_are_not_used():
    acc = example()
    acc[torch.ones(3, 3).triu(1).bool()] = NAN
    for metric in set(OF_MATRIX) - {F.forward_transfer_dr}:
        torch.testing.assert_close(metric(acc), metric(example()))
    assert F.forgetting(acc, from_first_seen=False).isnan()


def test_zero_shot_accuracy_is_no_knowledge_unless_asked_for():
    acc = torch.tensor([[0.5, 0.9, 0.0], [0.5, 0.6, 0.0], [0.5, 0.6, 0.5]])
    assert F.forgetting(acc).item() == pytest.approx(0.0)
    assert F.forgetting(acc, from_first_seen=False).item() == pytest.approx(0.15)
    assert F.forgetting(acc, variant="max_incl_last", from_first_seen=False).item() == pytest.approx(0.15)


def test_a_task_never_learned_is_left_out_of_relative_forgetting_and_counted():
    acc = torch.tensor([[0.8, 0.0, 0.0], [0.6, 0.0, 0.0], [0.4, 0.1, 0.5]], dtype=torch.float64)
    assert F.relative_forgetting(acc).item() == pytest.approx(0.5)
    assert F.never_learned(acc) == 1
    assert F.relative_forgetting(torch.zeros(3, 3)).isnan()
    assert F.never_learned(torch.zeros(3, 3)) == 2


def test_knowledge_rate_of_no_knowledge_is_undefined():
    assert F.knowledge_rate(torch.tensor([[0.0, 0.0], [0.5, 0.5]])).isnan()


def test_a_task_without_samples_does_not_count_in_the_micro_average():
    acc = torch.tensor([[0.5, NAN], [0.25, NAN]], dtype=torch.float64)
    assert F.average_accuracy(acc, sizes=[10, 0]).item() == 0.25
    assert F.average_accuracy(acc).isnan()
    assert F.average_accuracy(acc, sizes=[0, 0]).isnan()


def test_float64_whatever_comes_in():
    third = torch.full((2, 2), 1 / 3, dtype=torch.float32)
    assert F.average_accuracy(third).dtype == torch.float64
    assert F.average_accuracy(np.full((2, 2), 0.25)).item() == 0.25
    assert F.average_accuracy([[1, 0], [0, 1]]).item() == 0.5


def test_the_matrix_is_left_as_it_was():
    acc = example()
    for metric in OF_MATRIX:
        metric(acc)
    torch.testing.assert_close(acc, example())


@pytest.mark.parametrize("metric", OF_MATRIX)
@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 0), (2, 2, 2)])
def test_only_square_matrices(metric, shape):
    with pytest.raises(ValueError, match="must be square"):
        metric(torch.zeros(shape))


@pytest.mark.parametrize("k", [0, 4, -1, True, 1.0])
def test_stages_that_are_not_there(k):
    with pytest.raises(ValueError, match=r"one of 1\.\.3"):
        F.average_accuracy(example(), k)


def test_forward_transfer_does_not_guess_the_baseline():
    with pytest.raises(ValueError, match=r"`baseline`, .* is missing"):
        F.forward_transfer(example())


def test_rows_of_another_stream():
    with pytest.raises(ValueError, match="`baseline` has shape"):
        F.forward_transfer(example(), [0.1, 0.1])
    with pytest.raises(ValueError, match="`joint` has shape"):
        F.intransigence(example(), [0.1] * 4)
    with pytest.raises(ValueError, match="`sizes` has shape"):
        F.average_accuracy(example(), 2, sizes=[1, 1])
    with pytest.raises(ValueError, match="numbers >= 0"):
        F.average_accuracy(example(), sizes=[1, 1, -1])


def test_unknown_words():
    with pytest.raises(ValueError, match="'one_step'"):
        F.forgetting(example(), variant="best")
    with pytest.raises(ValueError, match="'first_minus_last'"):
        F.task_forgetting(example(), variant="one_step")
    with pytest.raises(ValueError, match="'none'"):
        F.intransigence(example(), [1, 1, 1], reduction="sum")


def test_finished_stages():
    acc = torch.full((4, 4), NAN)
    assert F.finished_stages(acc) == 0
    acc[1, 0] = 0.0
    assert F.finished_stages(acc) == 2
