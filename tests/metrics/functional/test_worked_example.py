"""Numbers that were computed by hand: a matrix with learning, forgetting and an old task that improves."""

import pytest
import torch

from lightning_cl.metrics import functional as F

ACC = torch.tensor([[0.80, 0.10, 0.05], [0.90, 0.80, 0.20], [0.60, 0.84, 0.85]], dtype=torch.float64)
BASELINE = [0.10, 0.08, 0.06]
JOINT = [0.92, 0.88, 0.90]
SIZES = [60, 20, 20]


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


def test_average_accuracy_at_every_stage():
    assert [F.average_accuracy(ACC, k).item() for k in (1, 2, 3)] == near([0.80, 0.85, 0.763333])
    assert F.average_accuracy(ACC).item() == near(0.763333)
    assert F.accuracy_per_stage(ACC).tolist() == near([0.80, 0.85, 0.763333])


def test_micro_accuracy_at_every_stage():
    assert [F.average_accuracy(ACC, k, sizes=SIZES).item() for k in (1, 2, 3)] == near([0.80, 0.875, 0.698])


def test_average_incremental_accuracy():
    assert F.average_incremental_accuracy(ACC).item() == near(0.804444)
    assert F.average_incremental_accuracy(ACC, skip_first=True).item() == near((0.85 + 0.763333) / 2)
    assert F.average_incremental_accuracy(ACC, sizes=SIZES).item() == near((0.80 + 0.875 + 0.698) / 3)


def test_learning_accuracy_and_its_identity_with_backward_transfer():
    assert F.learning_accuracy(ACC).item() == near(0.816667)
    assert F.backward_transfer(ACC).item() == near(-0.08)
    assert (F.learning_accuracy(ACC) + F.backward_transfer(ACC) * 2 / 3).item() == near(0.763333)


def test_forgetting_has_another_value_in_every_variant():
    assert F.forgetting(ACC, 2).item() == near(-0.10)
    assert F.task_forgetting(ACC).tolist() == near([0.30, -0.04])
    assert F.forgetting(ACC).item() == near(0.13)
    assert F.task_forgetting(ACC, variant="max_incl_last").tolist() == near([0.30, 0.00])
    assert F.forgetting(ACC, variant="max_incl_last").item() == near(0.15)
    assert F.task_forgetting(ACC, variant="first_minus_last").tolist() == near([0.20, -0.04])
    assert F.forgetting(ACC, variant="first_minus_last").item() == near(0.08)


def test_relative_forgetting():
    assert F.relative_forgetting(ACC).item() == near(0.141667)
    assert F.never_learned(ACC) == 0


def test_forward_transfer():
    assert F.forward_transfer(ACC, BASELINE).item() == near(0.08)


def test_intransigence():
    assert F.intransigence(ACC, JOINT, reduction="none").tolist() == near([0.12, 0.08, 0.05])
    assert F.intransigence(ACC, JOINT, reduction="mean").item() == near(0.083333)
    assert F.intransigence(ACC, JOINT).item() == near(0.05)


def test_diaz_rodriguez():
    assert F.matrix_accuracy_dr(ACC).item() == near(0.798333)
    assert F.backward_transfer_dr(ACC).item() == near(-0.02)
    assert F.remembering_dr(ACC).item() == near(0.98)
    assert F.positive_backward_transfer_dr(ACC).item() == near(0.0)
    assert F.forward_transfer_dr(ACC).item() == near(0.116667)


def test_knowledge_rate():
    assert F.knowledge_rate(ACC, sizes=SIZES).item() == near(0.8725)


def test_prompt_papers_report_three_forgettings():
    nan = float("nan")
    acc = torch.tensor([[90, nan, nan], [80, 85, nan], [70, 80, 88]])
    assert F.average_accuracy(acc).item() == near(79.333333)
    assert F.forgetting(acc).item() == near(12.5)
    assert F.forgetting(acc, variant="one_step").item() == near(8.75)
