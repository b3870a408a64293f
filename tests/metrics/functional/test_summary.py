"""Names and numbers of a run's summary."""

import pytest
import torch

from lightning_cl.metrics import functional as F
from lightning_cl.metrics import summarise
from lightning_cl.metrics.functional.summary import DEFINITIONS

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


def test_only_what_is_asked_for():
    every, some = summarise(ACC, ACC, SIZES), summarise(ACC, ACC, SIZES, names=["forgetting", "average_accuracy"])
    assert some == {
        name: every[name] for name in every if name.rpartition("/")[2] in ("forgetting", "average_accuracy")
    }
    assert len(some) == 4


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


def test_a_task_without_test_samples_is_left_out_and_a_missing_measurement_is_not():
    wide = torch.full((4, 4), NAN, dtype=torch.float64)
    kept = torch.tensor([0, 1, 3])  # task 2 brings no new class
    wide[kept[:, None], kept] = ACC
    wide[2, :2] = torch.tensor([0.7, 0.9], dtype=torch.float64)  # its stage is measured all the same
    sizes = torch.tensor([60, 20, 0, 20])
    metrics = summarise(wide, sizes=sizes)
    assert metrics["class_il/average_accuracy"] == pytest.approx((0.60 + 0.84 + 0.85) / 3)
    assert metrics["class_il/average_incremental_accuracy"] == pytest.approx((0.80 + 0.85 + 0.80 + 2.29 / 3) / 4)
    assert metrics["class_il/learning_accuracy"] == pytest.approx((0.80 + 0.80 + 0.85) / 3)
    assert metrics["class_il/backward_transfer"] == pytest.approx((-0.20 + 0.04) / 2)
    assert metrics["class_il/forgetting"] == pytest.approx((0.90 - 0.60 + 0.90 - 0.84) / 2)
    assert metrics["class_il/forgetting_max_incl_last"] == pytest.approx((0.90 - 0.60 + 0.90 - 0.84) / 2)
    assert metrics["class_il/forgetting_one_step"] == pytest.approx((-0.10 + (0.20 - 0.10) / 2 + (0.10 + 0.06) / 2) / 3)
    assert metrics["class_il/relative_forgetting"] == pytest.approx((0.30 / 0.90 + 0.06 / 0.90) / 2)
    assert metrics["class_il/knowledge_rate"] == pytest.approx(2.29 / 3 / 0.80)
    baseline = summarise(wide, sizes=sizes, baseline=[0.10, 0.08, NAN, 0.06])
    assert baseline["class_il/forward_transfer"] is None  # just before task 3, it was not measured
    wide[2, 3] = 0.20
    assert summarise(wide, sizes=sizes, baseline=[0.10, 0.08, NAN, 0.06])["class_il/forward_transfer"] == pytest.approx(
        ((0.10 - 0.08) + (0.20 - 0.06)) / 2
    )
    wide[3, 1] = NAN  # a task that has samples
    missing = summarise(wide, sizes=sizes)
    for name in ("average_accuracy", "backward_transfer", "forgetting", "relative_forgetting", "forgetting_one_step"):
        assert missing[f"class_il/{name}"] is None, name


def test_has_data_names_every_task():
    with pytest.raises(ValueError, match=r"`has_data` has shape \(2,\) but must be \(3,\)"):
        F.forgetting(ACC, has_data=[True, False])
