"""GenerativeKernel: answers typed out, statistics of the task's features, and what stays of earlier tasks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCallback, GenerativeKernel
from lightning_cl.nn.losses import supervised_contrastive

from ..by_hand import Net, make_online, make_stream, run

pytestmark = pytest.mark.filterwarnings("ignore")


class Watch(ContinualCallback):
    """Statistics at the start of every task, after every step and at every end; and the terms of the loss."""

    def __init__(self):
        self.starts, self.steps, self.ends, self.terms, self.features = [], [], [], [], []

    def part(self, pl_module):
        part = pl_module.continual.parts["generativekernel"]
        return part.means.clone(), part.squares.clone()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if len(self.starts) == trainer.datamodule.task_index:
            self.starts.append((self.part(pl_module), unit(pl_module, torch.cat(self.of_task(trainer)))))
        self.features.append((unit(pl_module, batch[0]), batch[1]))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append(self.part(pl_module))
        self.terms.append(pl_module.continual.last_terms["contrast"])

    def on_validation_end(self, trainer, pl_module):
        if trainer.datamodule.task_ended:
            self.ends.append(self.part(pl_module))

    def of_task(self, trainer):
        stream, task = trainer.datamodule, trainer.datamodule.task_index
        transform = stream.source.train_transform()
        items = stream.layout.train_index[task].tolist()
        return [transform(stream.source.item("train", i)[0])[None].double() for i in items]


@torch.no_grad()
def unit(module, inputs):
    return F.normalize(module.body(inputs), dim=1)


@pytest.fixture(scope="module")
def finished():
    watch, stream = Watch(), make_stream(task_identity=True)
    net = run(GenerativeKernel(drawn=3), callbacks=[watch], stream=stream)
    return net.eval(), watch, stream


def test_answers_typed_out(finished):
    net, _, _ = finished
    part, images = net.continual.parts["generativekernel"], torch.rand(7, 1, 4, 4, dtype=torch.float64)
    for task in range(3):
        net.continual.task = task
        with torch.no_grad():
            found, x = net(images), unit(net, images)
        support, labels = [], []
        for label in (2 * task, 2 * task + 1):
            deviation = (part.squares[label] - part.means[label] ** 2).clamp_min(0).sqrt()
            support += [part.means[label] + deviation * noise for noise in part.noise[label]]
            labels += [label - 2 * task] * 3
        s, y = torch.stack(support), torch.eye(2, dtype=torch.float64)[labels]
        gram = torch.stack([torch.exp(-0.25 * (s - row).abs().sum(1)) for row in s])
        cross = torch.stack([torch.exp(-0.25 * (s - row).abs().sum(1)) for row in x])
        shifted = gram + (part.ridges[task].abs() + 0.01) * torch.eye(6)
        expected = 10 * part.scales[task] * cross @ torch.linalg.solve(shifted, y) + part.shifts[task]
        assert_close(found[:, 2 * task : 2 * task + 2], expected.detach())
        assert bool((found.argmax(1) // 2 == task).all())
    net.continual.task = None


def test_statistics_are_those_of_the_task_s_features(finished):
    _, watch, _ = finished
    for task, ((means, squares), features) in enumerate(watch.starts):
        labels = torch.arange(20) >= 10
        for label in (0, 1):
            own = features[labels == bool(label)]
            assert_close(means[2 * task + label], own.mean(0))
            assert_close(squares[2 * task + label], (own**2).mean(0))


def test_statistics_follow_the_batches(finished):
    _, watch, _ = finished
    before = watch.starts[0][0][0]
    (features, labels), (means, _) = watch.features[0], watch.steps[0]
    for label in (0, 1):
        assert_close(means[label], 0.9 * before[label] + 0.1 * features[labels == label].mean(0))
    assert torch.equal(means[2:], before[2:])
    assert_close(watch.terms[0], 0.1 * supervised_contrastive(features, labels))


def test_what_was_fitted_for_earlier_tasks_stays(finished):
    net, watch, _ = finished
    part = net.continual.parts["generativekernel"]
    for task in (0, 1):
        rows = slice(2 * task, 2 * task + 2)
        assert torch.equal(part.means[rows], watch.ends[task][0][rows])
    for values in (part.ridges, part.scales, part.shifts):
        assert len(values.unique()) == 3  # each learned once


def test_later_tasks_make_smaller_steps():
    nets = [run(GenerativeKernel(drawn=3, decay=d), stream=make_stream(task_identity=True)) for d in (0.0, 1.0)]
    still, moving = ([net.ends[task]["body.1.weight"] for task in range(3)] for net in nets)
    assert torch.equal(still[0], moving[0])
    assert torch.equal(still[0], still[2])
    assert not torch.equal(moving[0], moving[1])


def test_classes_in_several_tasks_are_refused():
    with pytest.raises(ValueError, match="GenerativeKernel keeps a head for each task, but the classes"):
        GenerativeKernel().attach_once(Net(), make_online().info)
