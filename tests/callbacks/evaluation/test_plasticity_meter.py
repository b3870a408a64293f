"""PlasticityMeter: no trace in training, known answers at the first batch, and a run that goes on measures on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datamodules.tiny_stream import BATCHES, EPOCHS, TinyModule, make_stream, make_trainer

from lightning_cl.callbacks import ContinualEvaluation, FineTuning, PlasticityMeter
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.nn.plasticity import effective_rank, fresh_task_loss
from lightning_cl.reports.report import read

STEPS = sum(batches * epochs for batches, epochs in zip(BATCHES, EPOCHS, strict=True))


def fitted(folder: Path, *callbacks: Any) -> TinyModule:
    torch.manual_seed(0)
    module = TinyModule(dropout=0.5)
    make_trainer(folder, callbacks).fit(module, datamodule=make_stream())
    return module


@pytest.mark.pictures
def test_it_leaves_no_trace_and_its_numbers_are_in_the_report(tmp_path: Path) -> None:
    meter = PlasticityMeter(every=2, fresh_every=4, samples=5, fresh_steps=2)
    found = fitted(tmp_path / "1", FineTuning(), meter, ContinualEvaluation(print_table=False))
    plain = fitted(tmp_path / "2", FineTuning(), ContinualEvaluation(report=False, print_table=False))
    state = plain.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    series = read(tmp_path / "1").facts["PlasticityMeter"]["series"]
    assert series["batch"] == list(range(0, STEPS, 2))
    assert sorted(set(series["task"])) == [0, 1, 2]
    fresh = [batch for batch, loss in zip(series["batch"], series["fresh_task_loss"], strict=True) if loss is not None]
    assert fresh == list(range(0, STEPS, 4))
    assert all(0 < loss <= math.log(6) + 0.1 for loss in series["fresh_task_loss"] if loss is not None)
    assert all(0 <= share <= 1 for name in ("dormant_units", "active_units") for share in series[name])
    assert all(norm > 0 for name in ("weight_norm", "gradient_norm") for norm in series[name])
    assert (tmp_path / "1" / "plasticity.png").read_bytes().startswith(b"\x89PNG")


def test_its_numbers_are_those_of_the_weights_after_the_batch(tmp_path: Path) -> None:
    """The last measurement of a run whose last batch is measured, made again by hand."""
    meter = PlasticityMeter(every=STEPS - 1, fresh_every=STEPS - 1, samples=6, fresh_samples=3, fresh_steps=2)
    module = fitted(tmp_path, FineTuning(), meter)
    row = meter.state_dict()["rows"][-1]
    assert row["batch"] == STEPS - 1
    stream = make_stream()
    stream.setup("fit")
    images = stream.batch(stream.layout.train_index[2][:6], view="eval")[0]
    inputs: list[torch.Tensor] = []
    module.eval().continual_head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        module(images)
    assert row["effective_rank"] == pytest.approx(effective_rank(inputs[-1]), rel=1e-6)
    squares = sum(float(p.square().sum()) for p in module.parameters())
    assert row["weight_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)

    def features(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.func.functional_call(module, weights, (images[:3],))
        return inputs[-1]

    drawn = torch.Generator().manual_seed(mix_seed(stream.seed, 0x91A, STEPS - 1))
    labels = torch.randint(stream.info.num_classes, (3,), generator=drawn)
    by_hand = fresh_task_loss(features, dict(module.named_parameters()), labels, stream.info.num_classes, 2, 0.01)
    assert row["fresh_task_loss"] == pytest.approx(by_hand, rel=1e-5)


def test_it_goes_on_where_it_was() -> None:
    meter, other = PlasticityMeter(), PlasticityMeter()
    row = {"batch": 0, "task": 0, "dormant_units": 0.5}
    meter.load_state_dict({"version": 1, "batches": 7, "rows": [row]})
    other.load_state_dict(meter.state_dict())
    assert other.state_dict() == {"version": 1, "batches": 7, "rows": [row]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "nothing to measure on; give at least 2"),
        ({"every": 0}, "`every` is 0"),
        ({"every": 100, "fresh_every": 150}, "multiple of `every`, 100"),
        ({"fresh_lr": 0.0}, "above 0"),
        ({"fresh_samples": 1}, "`fresh_samples` is 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlasticityMeter(**options)
