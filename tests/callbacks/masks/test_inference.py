"""Evaluation without task identity: every sample is answered by the task whose network is surest of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_cl.callbacks import ContinualEvaluation, ProtocolGuard, SupSup

from ..by_hand import make_stream, run
from .task_runs import IMAGES, Mixed, answers

pytestmark = pytest.mark.filterwarnings("ignore")


def by_hand(module, images):
    """The class of every image, and its task: that of the lowest entropy over its two classes."""
    each = torch.stack([answers(module, task, images) for task in range(3)])  # (3, B, 2)
    shares = F.softmax(each, -1)
    task = (-shares * shares.log()).sum(-1).argmin(0)
    return 2 * task + each[task, torch.arange(len(task))].argmax(-1), task


@pytest.fixture(scope="module")
def finished():
    torch.manual_seed(0)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    guard = ProtocolGuard(probe=9, print_card=False, on_violation="error")
    method = SupSup(0.6, weights="given", task_by="entropy")
    return run(method, net=Mixed(), callbacks=[evaluation, guard], stream=make_stream()).eval(), evaluation, guard.card


def test_every_sample_is_answered_by_the_surest_task(finished):
    module, _, _ = finished
    with torch.no_grad():
        together = module(IMAGES)
        alone = torch.cat([module(image[None]) for image in IMAGES])
    expected, tasks = by_hand(module, IMAGES)
    assert len(tasks.unique()) > 1
    assert torch.equal(together.argmax(1), expected)
    torch.testing.assert_close(alone, together)


def test_the_evaluation_counts_these_answers(finished):
    module, evaluation, card = finished
    stream = make_stream()
    stream.setup("test")
    data, transform = stream.layout.evaluation["test"], stream.source.eval_transform()
    index = torch.cat(data.index)
    images = torch.stack([transform(stream.source.item("test", int(i))[0]) for i in index]).double()
    hits = by_hand(module, images)[0] == data.labels[index]
    counted = torch.bincount(data.task_of[index][hits], minlength=3)
    assert evaluation.correct["class_il"][-1].tolist() == counted.tolist()
    assert evaluation.total[-1].tolist() == [4, 4, 4]
    assert card["task identity"].result == card["batch mates"].result == card["batch size"].result == "pass"


def test_a_named_task_answers_alone(finished):
    module, _, _ = finished
    module.continual.task = 1
    with torch.no_grad():
        assert bool((module(IMAGES).argmax(1) // 2 == 1).all())
    module.continual.task = None


def test_layers_called_beside_forward_are_refused(finished):
    module, _, _ = finished
    with pytest.raises(ValueError, match=r"SupSup finds the task of every sample in a pass .*call `self\(inputs\)`"):
        module.body(IMAGES)


def test_finished_tasks_alone_compete():
    torch.manual_seed(0)
    net = Mixed().double().eval()
    SupSup(0.5, weights="given", task_by="entropy").attach_once(net, make_stream().info)
    (part,) = net.continual.parts.values()
    for finished, current, expected in ((0, None, 1), (2, None, 2), (1, 1, 2), (3, None, 3)):
        part.finished.set(finished)
        net.continual.choice.current = current
        assert part.branches_now(net) == range(expected)


class MakesItsLoss(Mixed):
    """As the networks of Hugging Face do."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        return logits if labels is None else (logits, F.cross_entropy(logits, labels))


def test_targets_meet_the_logits_of_the_samples():
    net, labels = MakesItsLoss().double().eval(), torch.arange(11) % 6
    SupSup(0.5, weights="given", task_by="entropy").attach_once(net, make_stream().info)
    net.continual.parts["supsup"].finished.set(3)
    with torch.no_grad():
        logits, loss = net(IMAGES, labels=labels)
        assert torch.equal(logits, net(IMAGES))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_the_choice_is_checked():
    with pytest.raises(ValueError, match="task_by"):
        SupSup(task_by="luck")
