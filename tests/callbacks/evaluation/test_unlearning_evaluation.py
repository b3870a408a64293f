"""Measurements around a request: against the module asked by hand, without a trace, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN
from conformance.runs import train
from conformance.streams import digits, make_stream

from lightning_cl.callbacks import FineTuning, Unlearning, UnlearningEvaluation
from lightning_cl.callbacks.evaluation.unlearning_evaluation import Answered, probe_accuracy

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_a_request_left_is_what_the_module_answers(tmp_path: Any) -> None:
    measure = UnlearningEvaluation(batch_size=7)
    method = Unlearning("random_labels", retain_weight=0.0)
    run = train(PLAIN, method, tmp_path, stream_options={"kind": "forget", "augment": "none"}, callbacks=[measure])
    facts = measure.report_facts()["requests"]
    assert sorted(facts) == ["1", "2"]
    module = run.module.eval()
    stream = make_stream("forget")
    stream.setup()
    logits, labels = [], []
    with torch.no_grad():
        for images, targets in stream.val_dataloader():
            logits.append(module(images))
            labels.append(targets)
    found, targets = torch.cat(logits), torch.cat(labels)
    held_out = targets == 1  # what the last request asked to forget
    after = facts["2"]["after"]
    assert after["held_out_accuracy"] == pytest.approx((found.argmax(1) == targets)[held_out].double().mean().item())
    assert after["retain_accuracy"] == pytest.approx((found.argmax(1) == targets)[targets > 1].double().mean().item())
    before = facts["2"]["before"]["held_out_accuracy"]
    assert after["generalisation"] == pytest.approx((before - after["held_out_accuracy"]) / (before - 1 / 6))


def test_it_leaves_no_trace(tmp_path: Any) -> None:
    plain, measured = (
        train(PLAIN, Unlearning(), tmp_path / str(len(more)), callbacks=more).module.state_dict()
        for more in ([], [UnlearningEvaluation()])
    )
    assert all(torch.equal(measured[name], value) for name, value in plain.items())


def test_a_probe_recovers_what_the_features_still_tell() -> None:
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    nothing = torch.zeros(30)
    features = F.one_hot(labels, 3).double() + 0.05 * torch.randn(60, 3)
    known, asked = (Answered(features[i::2], labels[i::2], nothing, nothing > 0) for i in range(2))
    assert probe_accuracy(known, asked.of((1,)), 0.1) == 1
    blind = Answered(torch.ones(30, 3).double(), labels[::2], nothing, nothing > 0)
    assert probe_accuracy(blind, blind.of((1,)), 0.1) in (0, 1)  # one answer for all
    far = Answered(100 + (labels[::2] == 1)[:, None].double(), labels[::2] == 1, nothing, nothing > 0)
    assert probe_accuracy(far, far, 1e-6) == 1  # a line through 0 would give one answer for all


def test_what_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"but this stream \(ClassIncremental\) has none"):
        train(PLAIN, FineTuning(), tmp_path, callbacks=[UnlearningEvaluation()])
    with pytest.raises(ValueError, match="`ridge` is 0; give a number above 0"):
        UnlearningEvaluation(ridge=0)
    assert len(digits()[1][1]) == 42
