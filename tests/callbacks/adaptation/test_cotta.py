"""CoTTA: its two losses, the average, what goes back to the source, and runs that must change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import train
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import NHL, CoTTA, FineTuning
from lightning_cl.callbacks.adaptation.cotta import restore_
from lightning_cl.nn.losses import soft_cross_entropy
from lightning_cl.training.evaluation_mode import with_batch_statistics

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_losses_of_known_logits() -> None:
    """``z = (2, 0, 0)`` and ``z' = (1, 1, 0)``: 1.394907, and 1.181704 with the reversed direction."""
    student, teacher = torch.tensor([[2.0, 0, 0]]).double(), torch.tensor([[1.0, 1, 0]]).double()
    one, other = soft_cross_entropy(student, teacher), soft_cross_entropy(teacher, student)
    assert_close(one.item(), 1.394907, atol=1e-6, rtol=0)
    assert_close(((one + other) / 2).item(), 1.181704, atol=1e-6, rtol=0)


def test_a_share_of_the_weights_goes_back() -> None:
    """The share is within three standard deviations; the same seed chooses the same elements."""
    source = {"a": torch.zeros(40, 50), "b": torch.zeros(3000)}
    moved = {name: torch.ones_like(w) for name, w in source.items()}
    again = {name: w.clone() for name, w in moved.items()}
    restore_(moved, source, 0.1, seed=5)
    restore_(again, source, 0.1, seed=5)
    back = torch.cat([(w == 0).flatten() for w in moved.values()]).double().mean().item()
    assert abs(back - 0.1) < 3 * (0.1 * 0.9 / 5000) ** 0.5
    assert all(torch.equal(moved[name], again[name]) for name in source)
    restore_(moved, source, 1.0, seed=5)
    assert all(bool((w == 0).all()) for w in moved.values())


def test_batch_norm_uses_the_batch_and_keeps_its_own_statistics() -> None:
    layer, x = nn.BatchNorm1d(3).eval(), torch.randn(20, 3) * 5 + 2
    before = {name: b.clone() for name, b in layer.named_buffers()}
    with with_batch_statistics(layer):
        assert_close(layer(x).mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    assert all(torch.equal(b, before[name]) for name, b in layer.named_buffers())
    assert not layer.training
    assert layer.track_running_stats


def adapted(tmp_path: Any, epochs: int | None = None, **arguments: Any) -> Any:
    options = {} if epochs is None else {"max_epochs": epochs}
    return train(PLAIN, CoTTA(views=0, **arguments), tmp_path, **options)


def weights(run: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in run.module.named_parameters() if not n.startswith("continual.")}


def test_what_answers_is_the_teacher(tmp_path: Any) -> None:
    """With a decay of 1 it is the source to the last bit; otherwise layers move, class token and positions do not."""
    source = weights(adapted(tmp_path, epochs=1))
    still, moving = adapted(tmp_path, decay=1.0), adapted(tmp_path, decay=0.9)
    assert all(torch.equal(w, source[name]) for name, w in weights(still).items())
    moved = {name for name, w in weights(moving).items() if not torch.equal(w, source[name])}
    assert {"net.cls_token", "net.pos_embed"} == source.keys() - moved
    part = moving.module.continual.parts["cotta"]
    assert all(torch.equal(w, source[name]) for name, w in part.source.items())
    assert any(not torch.equal(w, source[name]) for name, w in part.students().items())


def test_with_all_of_it_going_back_the_student_is_the_source(tmp_path: Any) -> None:
    run = adapted(tmp_path, restore=1.0)
    part = run.module.continual.parts["cotta"]
    source = dict(part.source.items())
    assert all(torch.equal(w, source[name]) for name, w in part.students().items())


def test_the_report_has_the_accuracy_before_after_and_on_the_way(tmp_path: Any) -> None:
    run = adapted(tmp_path, decay=1.0)
    report = run.evaluation.build_report(run.trainer, run.module)
    matrix = report.class_il
    assert report.unlabelled == [1, 2]
    assert report.metrics["adaptation/accuracy_before"] == pytest.approx(float(matrix[0, 1:].mean()))
    assert report.metrics["adaptation/accuracy_gain"] == pytest.approx(0)  # the teacher stood still
    way = report.facts["CoTTA"]["accuracy_on_the_way"]
    assert way[0] is None
    right, total = run.method.answered.T
    assert total.tolist() == [0, 2 * 27, 27]  # epochs
    assert way[1:] == pytest.approx([int(right[t]) / int(total[t]) for t in (1, 2)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"restore": 2.0}, "`restore` is 2.0"),
        ({"views": -1}, "`views` is -1"),
        ({"mean": (0.5,)}, "`std` is None; give both"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoTTA(**arguments)


def test_streams_of_the_other_kind_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"CoTTA adapts without labels, but all tasks of this stream \(ClassIncr"):
        train(PLAIN, CoTTA(), tmp_path, stream_options={"kind": "labelled"})
    with pytest.raises(
        ValueError, match="FineTuning learns from labels, but 2 of the 3 tasks of this stream have none"
    ):
        train(PLAIN, FineTuning(), tmp_path, stream_options={"kind": "unlabelled"})
    with pytest.raises(ValueError, match="CoTTA and NHL each make the steps of the tasks without labels"):
        train(PLAIN, CoTTA(), tmp_path, callbacks=[NHL()])
