"""Names and numbers of a run's summary."""

import pytest
import torch

from lightning_cl.metrics import summarise
from lightning_cl.metrics.summary import DEFINITIONS

NAN = float("nan")
ACC = torch.tensor([[0.80, 0.10, 0.05], [0.90, 0.80, 0.20], [0.60, 0.84, 0.85]], dtype=torch.float64)
SIZES = torch.tensor([60, 20, 20])


def test_the_worked_example_by_name():
    metrics = summarise(ACC, torch.ones(3, 3), SIZES)
    assert {name: round(value, 6) for name, value in metrics.items() if name.startswith("class_il/")} == {
        "class_il/average_accuracy": 0.763333,
        "class_il/average_accuracy_micro": 0.698,
        "class_il/average_incremental_accuracy": 0.804444,
        "class_il/average_incremental_accuracy_micro": 0.791,
        "class_il/learning_accuracy": 0.816667,
        "class_il/backward_transfer": -0.08,
        "class_il/forgetting": 0.13,
        "class_il/forgetting_max_incl_last": 0.15,
        "class_il/forgetting_one_step": 0.015,  # (-0.10 + (0.30 - 0.04) / 2) / 2
        "class_il/relative_forgetting": 0.141667,
        "class_il/knowledge_rate": 0.954167,
        "class_il/knowledge_rate_micro": 0.8725,
    }
    assert metrics["task_il/average_accuracy"] == 1
    assert metrics["task_il/forgetting"] == 0


def test_names_depend_on_what_is_given_not_on_its_values():
    names = set(summarise(ACC, ACC, SIZES))
    assert names == {
        f"{space}/{name}" for space in ("class_il", "task_il") for name in set(DEFINITIONS) - {"forward_transfer"}
    }
    assert set(summarise(torch.full((3, 3), NAN), ACC)) == names
    assert set(summarise(ACC)) == {name for name in names if name.startswith("class_il")}


def test_undefined_is_none():
    one = summarise(torch.tensor([[0.5]]), sizes=torch.tensor([10]))
    assert one["class_il/average_accuracy"] == one["class_il/average_accuracy_micro"] == 0.5
    assert one["class_il/forgetting"] is one["class_il/backward_transfer"] is None
    assert summarise(ACC)["class_il/average_accuracy_micro"] is None
    assert set(summarise(torch.full((3, 3), NAN)).values()) == {None}


def test_a_stream_that_is_not_over_is_summed_up_to_where_it_is():
    part = ACC.clone()
    part[2] = NAN
    metrics = summarise(part, sizes=SIZES)
    assert metrics["class_il/average_accuracy"] == pytest.approx(0.85)
    assert metrics["class_il/average_accuracy_micro"] == pytest.approx(0.875)
    assert metrics["class_il/forgetting"] == pytest.approx(-0.10)


def test_forward_transfer_is_of_the_label_space_of_its_baseline():
    baseline = [0.10, 0.08, 0.06]
    assert summarise(ACC, None, SIZES, baseline)["class_il/forward_transfer"] == pytest.approx(0.08)
    both = summarise(torch.ones(3, 3), ACC, SIZES, baseline)
    assert both["task_il/forward_transfer"] == pytest.approx(0.08)
    assert "class_il/forward_transfer" not in both
