"""Replay beside other methods, that it helps, and what the report tells of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from conformance.modules import tiny_vit
from conformance.runs import in_forked_processes
from lightning.pytorch import Callback, Trainer
from nn.replay.loops import assert_same_state
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.testing import assert_close

from callbacks.test_virtual_outliers import phase_of
from lightning_cl.callbacks import (
    AGEM,
    APER,
    GEM,
    CODAPrompt,
    ContinualEvaluation,
    DERPlusPlus,
    DualPrompt,
    ExperienceReplay,
    FineTuning,
    VirtualOutlierRegularizer,
)
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule

from .replay_runs import (
    MEMORY,
    Net,
    Steps,
    fit,
    make_stream,
    replay,
    result,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def ovor() -> VirtualOutlierRegularizer:
    return VirtualOutlierRegularizer(neighbours=10, boundary_points=10, draws=40, per_class=10)


COMPANY = {
    "coda": lambda: CODAPrompt(pool_size=9, prompt_length=4, layers=(0, 1), train_mask="task"),
    "dual": lambda: DualPrompt(2, 4, (0,), (1,), train_mask="task"),
    "fine": lambda: FineTuning(train_mask="task"),
}


@pytest.mark.parametrize("online", [True, False], ids=["online", "epochs"])
@pytest.mark.parametrize("kind", ["coda", "dual", "fine"])
def test_it_joins_other_methods_in_any_order(kind, online):
    runs = []
    for first in (True, False):
        method, steps = replay(train_mask="task"), Steps()
        company = [method, COMPANY[kind]()] if first else [COMPANY[kind](), method]
        torch.manual_seed(0)
        ended = fit(*company, steps, module=Net(tiny_vit()), stream=make_stream(online, augment="crop"))
        assert all(map(torch.isfinite, map(torch.tensor, steps.losses)))  # old classes are not masked away
        assert any(int(batch[1].min()) < 2 for batch in steps.batches[-6:])
        runs.append((result(ended), method.state_dict(), steps.losses))
    assert runs[0][2] == runs[1][2]
    assert_same_state(runs[0][1], runs[1][1])
    assert_same_state(dict(sorted(runs[0][0].items())), dict(sorted(runs[1][0].items())))


@pytest.mark.parametrize(
    "memory", [AGEM, GEM, lambda **sizes: DERPlusPlus(alpha=0.0, beta=0.0, **sizes)], ids=["agem", "gem", "der"]
)
def test_a_memory_lets_a_method_be_that_trains_in_the_first_task_only(memory):
    runs = []
    for company in ([], [memory(memory_size=MEMORY, batch_size=4)]):
        torch.manual_seed(0)
        ended = fit(APER(**APER.small), *company, module=Net(tiny_vit()), stream=make_stream(online=False))
        runs.append(result(ended))
    assert_same_state(*({k: v for k, v in run.items() if ".aper." in k or "net." in k} for run in runs))


class OutlierEntropy(Callback):
    """The cross-entropy of outlier steps, and that of the joined batch with the weights before the step."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []
        self.expected: list[Tensor] = []

    @torch.no_grad()
    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if phase_of(pl_module) == "outlier":
            self.expected.append(nn.functional.cross_entropy(pl_module(batch[0]), batch[1]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if phase_of(pl_module) == "outlier":
            self.found.append(trainer.callback_metrics["outlier/cross_entropy"])


def test_outlier_epochs_train_the_head_on_remembered_samples_too(tmp_path):
    def run(*company: Callback, **trainer: Any):
        entropy = OutlierEntropy()
        ended = fit(*company, entropy, stream=make_stream(online=False), precision="64-true", **trainer)
        return ended, result(ended), entropy

    def rank() -> None:
        ended, weights, _ = run(replay(), ovor(), strategy="ddp", devices=2)
        torch.save(weights, tmp_path / f"rank{ended.global_rank}.pt")

    _, expected, entropy = run(replay(), ovor())
    assert len(entropy.found) == 9  # one epoch of each task
    assert_close(entropy.found, entropy.expected)
    assert_close(dict(sorted(run(ovor(), replay())[1].items())), dict(sorted(expected.items())), rtol=0, atol=0)
    assert in_forked_processes(rank, count=2) == [0, 0]
    for i in (0, 1):
        assert_close(torch.load(tmp_path / f"rank{i}.pt", weights_only=True), expected, rtol=1e-6, atol=1e-8)


def test_only_classes_of_the_joined_batch_compete_under_the_batch_mask():
    class Masks(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[list[int], list[int]]] = []

        def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: Tensor) -> None:
            self.seen.append(pl_module.continual.mask.train_allowed.nonzero().flatten().tolist())

    masks, steps = Masks(), Steps()
    fit(replay(train_mask="batch"), masks, steps)
    assert masks.seen == [sorted(set(batch[1].tolist())) for batch in steps.batches]
    assert all(torch.isfinite(torch.tensor(steps.losses)))


def final_accuracy(method: Callback) -> float:
    data = load_digits()
    images, labels = torch.from_numpy(data.images / 16).float(), torch.from_numpy(data.target)
    source = ArraySource((images[:800], labels[:800]), (images[1200:], labels[1200:]), augment="none")
    stream = ContinualDataModule(
        source, ClassIncremental(num_tasks=5), batch_size=16, epochs_per_task=2, eval_batch_size=600
    )
    evaluation = ContinualEvaluation(report=False, print_table=False)
    torch.manual_seed(0)
    module = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    fit(method, evaluation, module=module, stream=stream)
    return float(evaluation.matrix()[-1].mean())


def test_replay_keeps_what_fine_tuning_forgets():
    forgotten = final_accuracy(FineTuning(train_mask="seen", head="net.3"))
    assert forgotten < 0.35  # little more than the last two of ten classes
    for policy in ("reservoir", "class_balanced", "ring"):
        kept = final_accuracy(ExperienceReplay(200, 16, policy=policy, head="net.3"))
        assert kept > forgotten + 0.3, (policy, kept)


def test_the_report_tells_what_was_stored(tmp_path):
    evaluation = ContinualEvaluation(print_table=False)
    fit(replay(), evaluation, default_root_dir=tmp_path)
    report = json.loads((tmp_path / "continual_report.json").read_text())
    assert report["methods"]["ExperienceReplay"]["memory_size"] == MEMORY
    facts = {"stored_samples": MEMORY, "stored_bytes": 16 * MEMORY, "stored_as": "positions in the training data"}
    assert report["facts"] == {"ExperienceReplay": facts}
    method = replay(store="sample")
    fit(method)
    assert method.report_facts()["stored_bytes"] == MEMORY * (16 * 16 * 4 + 8 + 8)  # image, label, our label
