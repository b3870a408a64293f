"""Accuracies are of what a module answers, or the report and the card say that they are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN, PlainModule
from conformance.runs import train
from conformance.streams import NUM_CLASSES, make_stream
from lightning.pytorch import Trainer
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lightning_cl.callbacks import AnytimeEvaluation, ContinualEvaluation, FineTuning, ItemCurves, ProtocolGuard
from lightning_cl.callbacks.evaluation.module_answers import returned_answers

ADJUSTED = torch.linspace(0, 50, NUM_CLASSES)  # the last class always wins


class Adjusted(PlainModule):
    """Adjusts its logits after the head; members say how they tell."""

    def on_validation_epoch_start(self) -> None:
        self.hits: list[torch.Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0]) + ADJUSTED
        self.hits.append((logits.argmax(1) == batch[1]).float())
        return self.told(logits, batch[1])

    def told(self, logits: Any, labels: Any) -> Any:
        return None


class WithScores(Adjusted):
    def told(self, logits: Any, labels: Any) -> Any:
        return {"preds": logits.softmax(1), "target": labels}


class WithClasses(Adjusted):
    def told(self, logits: Any, labels: Any) -> Any:
        return {"preds": logits.argmax(1)}


class WithMetric(PlainModule):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.accuracy = MulticlassAccuracy(NUM_CLASSES)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.accuracy.update((self(batch[0]) + ADJUSTED).softmax(1), batch[1])


class WithLoss(PlainModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]) + ADJUSTED, batch[1]))


class TwoHeads(PlainModule):
    """The mean of two heads, as a distilled DeiT answers."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.net.head_dist = torch.nn.Linear(32, NUM_CLASSES)
        torch.nn.init.constant_(self.net.head_dist.weight, 0.0)
        self.net.head_dist.bias.data.copy_(ADJUSTED)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        features = self.net.forward_head(self.net.forward_features(batch[0]), pre_logits=True)
        self.chosen = ((self.net.head(features) + self.net.head_dist(features)) / 2).topk(1)


def run(module: type[Any], folder: Any, *callbacks: Any, **options: Any) -> Any:
    case = replace(PLAIN, build=lambda *given: module(*given))
    options = {"stream_options": {"epochs_per_task": 1}, "limit_train_batches": 2, **options}
    return train(case, FineTuning(head="net.head"), folder, callbacks=callbacks, **options)


@pytest.mark.parametrize("module", [Adjusted, WithMetric, WithLoss, TwoHeads])
@pytest.mark.filterwarnings("ignore:protocol violated")
def test_answers_after_the_head_are_noticed(module: Any, tmp_path: Any) -> None:
    guard = ProtocolGuard(probe=4, duplicates=0, print_card=False)
    done = run(module, tmp_path, guard)
    notes = done.evaluation.build_report(done.trainer, done.module).notes
    assert any("the module answers after the head" in note for note in notes)
    assert guard.card["answers"].result == "fail"
    assert "validation_step" not in vars(done.module)


class WithAList(Adjusted):
    def told(self, logits: Any, labels: Any) -> Any:
        return {"preds": logits.argmax(1).tolist()}


class WithFloats(Adjusted):
    def told(self, logits: Any, labels: Any) -> Any:
        return {"preds": logits.argmax(1).float()}


@pytest.mark.parametrize(("module", "kind"), [(WithAList, "list"), (WithFloats, "torch.float32 of shape")])
def test_answers_that_cannot_be_read_are_said(module: Any, kind: str, tmp_path: Any) -> None:
    done = run(module, tmp_path)
    notes = done.evaluation.build_report(done.trainer, done.module).notes
    assert any(f"returned `preds` as {kind}" in note for note in notes)


@pytest.mark.parametrize("module", [WithScores, WithClasses])
def test_returned_answers_are_counted(module: Any, tmp_path: Any) -> None:
    done = run(module, tmp_path)
    own = torch.cat(done.module.hits).sum().item()
    assert done.evaluation.total[-1].sum() == len(torch.cat(done.module.hits))
    if module is WithClasses:
        assert done.evaluation.correct["class_il"][-1].sum().item() == own
    assert done.evaluation.correct["class_il"][-1].tolist()[:-1] == [0, 0]  # the last class always wins
    assert [note for note in done.evaluation.notes() if "returned as `preds`" in note]


def adjusted(module: Any, batch: Any, outputs: Any) -> torch.Tensor:
    assert outputs is None
    return module(batch[0]) + ADJUSTED


def evaluated(module: Any, answers: Any) -> tuple[ContinualEvaluation, float, int]:
    evaluation = ContinualEvaluation(report=False, print_table=False, answers=answers)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_epochs=3, limit_train_batches=1, enable_model_summary=False, callbacks=[FineTuning(), evaluation], **options
    )
    trainer.fit(module, datamodule=make_stream(epochs_per_task=1))
    hits = torch.cat(module.hits)
    return evaluation, hits.sum().item(), len(hits)


@pytest.mark.parametrize("answers", [adjusted, f"{__name__}.adjusted"], ids=["function", "path"])
def test_a_stated_function_is_counted(answers: Any) -> None:
    evaluation, hits, count = evaluated(Adjusted("adamw", 0.0), answers)
    assert evaluation.total[-1].sum() == count
    assert evaluation.correct["class_il"][-1].tolist()[:-1] == [0, 0]  # the last class always wins
    assert evaluation.correct["class_il"][-1].sum().item() == hits > 0
    assert ["function `answers`" in note for note in evaluation.notes()] == [True]


def test_what_states_no_answers_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"`answers` is 'nowhere.f'; expected a function of \(module, batch"):
        ContinualEvaluation(answers="nowhere.f")
    with pytest.raises(ValueError, match=r"`answers` gave torch.float32 of shape \(3,\) for .* expected \(B, "):
        evaluated(Adjusted("adamw", 0.0), lambda *_: torch.zeros(3))


def test_a_module_that_answers_with_its_head_gets_no_note(tmp_path: Any) -> None:
    guard = ProtocolGuard(probe=4, duplicates=0, print_card=False)
    done = run(PlainModule, tmp_path, guard)
    assert done.evaluation.notes() == []
    assert done.evaluation.answers.compared > 0
    assert guard.card["answers"].result == "pass"


def test_a_regression_gets_no_accuracy(tmp_path: Any) -> None:
    class Regression(PlainModule):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0], batch[1] + 0.25

    with pytest.raises(ValueError, match=r"ContinualEvaluation counts right classes, .* a regression has no accuracy"):
        run(Regression, tmp_path)
    with pytest.raises(ValueError, match="AnytimeEvaluation counts right classes"):
        run(Regression, tmp_path, AnytimeEvaluation(report=False), num_sanity_val_steps=0)
    with pytest.raises(ValueError, match="ItemCurves counts right classes"):
        ItemCurves().on_validation_batch_start(None, None, (torch.rand(2, 3), torch.rand(2)), 0)  # type: ignore[arg-type]


def test_what_counts_as_an_answer() -> None:
    scores, classes = torch.rand(5, 3), torch.arange(5)
    assert torch.equal(returned_answers({"preds": scores}, 4, 3), scores[:4])
    assert torch.equal(returned_answers({"predictions": classes}, 4, 3), classes[:4])
    for nothing in (None, scores, {"loss": scores}, {"preds": scores[:, :2]}, {"preds": scores[:3]}, {"preds": 1}):
        assert returned_answers(nothing, 4, 3) is None
