"""Images are counted pass by pass, nothing that is learned changes, and a run that goes on counts on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.runs import in_forked_processes
from datamodules.tiny_stream import EPOCHS, SIZES, TinyModule, make_stream
from lightning.pytorch import Trainer
from tiny import tiny_vit
from torch import Tensor, nn

from lightning_cl.callbacks import HAT, CODAPrompt, ContinualEvaluation, ExperienceReplay, RunCost
from lightning_cl.callbacks.evaluation.cost_counts import counted_layer, memory_facts, stored_bytes
from lightning_cl.reports.report import read

#: Training samples of the three tasks, and test samples of the tasks seen after each epoch.
TASK_SIZES = [SIZES[0] + SIZES[1], SIZES[2] + SIZES[3], SIZES[4] + SIZES[5]]
SHOWN = sum(size * epochs for size, epochs in zip(TASK_SIZES, EPOCHS, strict=True))
EVALUATED = sum(6 * (task + 1) * epochs for task, epochs in enumerate(EPOCHS))


class Twice(TinyModule):
    """Looks at every image once more, without gradient, as a query does."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with torch.no_grad():
            self(batch[0])
        return super().training_step(batch, batch_idx)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet = {"enable_checkpointing": False, "num_sanity_val_steps": 0, "max_epochs": -1}
    return Trainer(**{**settings, **quiet, **options}, default_root_dir=folder, callbacks=list(callbacks))


def costs(folder: Path, module: Any, *callbacks: Any, cost: RunCost | None = None, **options: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    found = cost or RunCost(repeats=1)
    run = trainer(folder, *callbacks, ContinualEvaluation(print_table=False), found)
    run.fit(module, datamodule=make_stream(**options))
    return dict(read(folder).facts["RunCost"])


def test_every_image_of_every_pass_is_counted(tmp_path: Path) -> None:
    once, twice = costs(tmp_path / "1", TinyModule()), costs(tmp_path / "2", Twice())
    assert (once["forward_samples"], once["backward_samples"], once["evaluated_samples"]) == (SHOWN, SHOWN, EVALUATED)
    assert (twice["forward_samples"], twice["backward_samples"]) == (2 * SHOWN, SHOWN)
    assert once["seconds"] > once["seconds_evaluating"] > 0
    assert set(once["latency_ms"]) == {"1", "4"}
    assert all(value > 0 for value in once["latency_ms"].values())


def test_the_latency_of_a_method_that_must_be_told_the_task(tmp_path: Path) -> None:
    found = costs(tmp_path, TinyModule(), HAT(0.1), task_identity=True)
    assert all(value > 0 for value in found["latency_ms"].values())


def test_replayed_images_are_counted_and_stored(tmp_path: Path) -> None:
    found = costs(tmp_path, TinyModule(), ExperienceReplay(memory_size=10, batch_size=2))
    assert found["forward_samples"] == found["backward_samples"] > SHOWN
    assert (found["memory_samples"], found["memory_bytes"], found["image_bytes"]) == (10, 640, 64)
    assert found["stored_bytes"] == found["model_bytes"] + 640


def test_nothing_that_is_learned_changes(tmp_path: Path) -> None:
    weights = []
    for cost in ([], [RunCost(repeats=1)]):
        torch.manual_seed(0)
        module = TinyModule(dropout=0.5)
        trainer(tmp_path, ContinualEvaluation(report=False, print_table=False), *cost).fit(module, make_stream())
        weights.append(module.state_dict())
        assert not any(m._forward_pre_hooks for m in module.modules())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_that_goes_on_counts_on(tmp_path: Path, stop: int) -> None:
    """Stopped after ``stop`` epochs and continued: the counts of a run in one piece, and no time is lost."""
    torch.manual_seed(0)
    module, first = TinyModule(), RunCost(latency=False)
    run = trainer(tmp_path, ContinualEvaluation(report=False, print_table=False), first, max_epochs=stop)
    run.fit(module, make_stream())
    run.save_checkpoint(tmp_path / "stopped.ckpt")
    seconds = first.report_facts()["seconds"]
    second = RunCost(latency=False)
    run = trainer(tmp_path, ContinualEvaluation(print_table=False), second)
    run.fit(TinyModule(), make_stream(), ckpt_path=tmp_path / "stopped.ckpt")
    found = second.report_facts()
    assert (found["forward_samples"], found["backward_samples"]) == (SHOWN, SHOWN)
    assert found["evaluated_samples"] == EVALUATED
    assert found["seconds"] > seconds
    state = torch.load(tmp_path / "stopped.ckpt", weights_only=True)["callbacks"]["lightning_cl.RunCost"]
    assert state["version"] == 1


def test_processes_together_count_what_one_counts(tmp_path: Path) -> None:
    """Shares of a batch differ by a row, and a rank without one repeats it: never less, and rarely more."""

    def on_two() -> None:
        found = RunCost(latency=False)
        callbacks = [ContinualEvaluation(report=False, print_table=False), found]
        run = trainer(tmp_path, *callbacks, devices=2, strategy="ddp", use_distributed_sampler=False)
        run.fit(TinyModule(), make_stream())
        facts = found.report_facts()
        assert facts["processes"] == 2
        batches = sum(-(-size // 4) * epochs for size, epochs in zip(TASK_SIZES, EPOCHS, strict=True))
        assert SHOWN <= facts["forward_samples"] <= SHOWN + batches, facts
        assert facts["forward_samples"] == facts["backward_samples"]

    assert in_forked_processes(on_two, 2) == [0, 0]


def test_passes_of_a_vit_are_counted_where_they_end() -> None:
    """The prompted pass of a query method begins behind the layers that both passes share."""
    vit = nn.ModuleDict({"net": tiny_vit()})
    assert counted_layer(vit) is vit["net"].blocks[-1].norm1
    assert counted_layer(vit, "net.head") is vit["net"].head
    assert counted_layer(nn.Linear(2, 2)) is None
    with pytest.raises(ValueError, match=r'layer="net.hed"` is no layer of ModuleDict'):
        counted_layer(vit, "net.hed")


def test_a_query_method_makes_two_passes(tmp_path: Path) -> None:
    from tiny import TinyModule as ViT

    class Validated(ViT):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])

        def _resized(self, x: Tensor) -> Tensor:
            return nn.functional.interpolate(x.double().expand(-1, 3, -1, -1), size=32)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self._resized(x))

    prompts = CODAPrompt(pool_size=6, prompt_length=2, layers=(1, 2))
    found = costs(tmp_path, Validated(num_classes=6), prompts)
    assert (found["forward_samples"], found["backward_samples"]) == (2 * SHOWN, SHOWN)


def test_memory_of_positions_is_that_of_the_images() -> None:
    positions = {"stored_samples": 5, "stored_bytes": 40, "stored_as": "positions in the training data"}
    samples = {"stored_samples": 2, "stored_bytes": 999, "stored_as": "samples"}
    assert memory_facts([positions, samples, {}], image_bytes=64) == (7, 5 * 64 + 999)
    beside = {**positions, "stored_bytes_beside": 30}  # logits beside positions; samples have counted theirs
    assert memory_facts([beside, {**samples, "stored_bytes_beside": 30}], image_bytes=64) == (7, 5 * 64 + 30 + 999)


def test_shared_tensors_are_stored_once() -> None:
    weight = torch.zeros(4, 3)
    assert stored_bytes([weight, weight[1:], torch.zeros(2, dtype=torch.int64)]) == 48 + 16


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`repeats` is 0"):
        RunCost(repeats=0)
