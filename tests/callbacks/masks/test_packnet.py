"""PackNet: whose every weight is, that a task's answers stay, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import stream_info
from torch import nn

from lightning_cl.callbacks import PackNet

from ..by_hand import make_stream, run
from .task_runs import Mixed, answers, assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def finished():
    return told_run(PackNet(0.5, retrain=0.5))


def attached(net):
    PackNet(0.5).attach_once(net, make_stream().info)
    return net, net.continual.parts["packnet"]


class Four(Mixed):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Identity(), nn.Linear(64, 64)
        self.body[0] = nn.Conv2d(1, 4, 1)
        with torch.no_grad():
            self.body[0].weight.copy_(torch.tensor([0.1, -0.5, 0.2, 0.05]).view(4, 1, 1, 1))


def test_the_smaller_half_of_four_weights_becomes_free():
    net, part = attached(Four())
    part.end_task(net, None)
    assert net.body[0].weight.flatten().tolist() == pytest.approx([0, -0.5, 0.2, 0])
    assert part.owners["body.0"].flatten().tolist() == [0, 1, 1, 0]
    with torch.no_grad():  # the second task has the free ones only
        net.body[0].weight.copy_(torch.tensor([0.01, -0.5, 0.2, -0.02]).view(4, 1, 1, 1))
    part.end_task(net, None)
    assert net.body[0].weight.flatten().tolist() == pytest.approx([0, -0.5, 0.2, -0.02])
    assert part.owners["body.0"].flatten().tolist() == [0, 1, 1, 2]


def test_answers_for_earlier_tasks_stay(finished):
    assert_earlier_answers_stay(*finished)


def test_owners_partition_the_weights(finished):
    module, _ = finished
    for name, owner in module.continual.parts["packnet"].owners.items():
        # A weight that got no gradient since it became free is still 0, whoever has it now.
        free, weight = owner.numel(), module.get_submodule(name).weight
        for task in (1, 2, 3):
            assert int((owner == task).sum()) == free - int(0.5 * free)
            free = int(0.5 * free)
        assert int((owner == 0).sum()) == free
        assert bool((weight[owner == 0] == 0).all())
        assert float((weight[owner > 0] != 0).double().mean()) > 0.9


class Watched(Mixed):
    """The weights of one layer before every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(self.up.weight.detach().clone())
        return super().training_step(batch, batch_idx)


def test_survivors_alone_are_retrained():
    module, _ = told_run(PackNet(0.5, retrain=0.5), Watched())
    owner, steps = module.continual.parts["packnet"].owners["up"], module.seen
    assert len(steps) == 18  # two epochs of three batches in each of three tasks
    for task in range(3):
        start, pruned, end = steps[6 * task], steps[6 * task + 4], (steps[6 * task + 6 :] or [module.up.weight])[0]
        mine, free = owner == task + 1, (owner == 0) | (owner > task + 1)
        assert float((steps[6 * task + 2] != start)[free].double().mean()) > 0.6  # all that are free learn
        assert bool((pruned[free] == 0).all())
        assert bool((end[free] == 0).all())
        assert float((end != pruned)[mine].double().mean()) > 0.6  # but for those of units that never answer
        earlier = (owner > 0) & (owner <= task)
        assert torch.equal(end[earlier], start[earlier])


def test_the_last_task_s_answers_need_its_weights(finished):
    module, ends = finished
    twin = module.continual.parts["packnet"].owners
    kept = twin["up"].clone()
    twin["up"].fill_(0)  # nobody's
    assert not torch.equal(answers(module, 2), ends.answers[2][2])
    twin["up"].copy_(kept)


def test_predictions_need_a_task(finished):
    module, _ = finished
    module.eval().continual.task = None
    with pytest.raises(ValueError, match=r"PackNet answers with what it keeps for one task, .*continual.task = 3"):
        module(torch.zeros(2, 1, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="`task` is 3, but the stream has the tasks 0 to 2"):
        module.continual.task = 3


def test_refusals():
    with pytest.raises(ValueError, match=r"PackNet answers only for samples whose task it is told.*task_identity=True"):
        run(PackNet(), net=Mixed())
    with pytest.raises(ValueError, match=r"`prune` is 2"):
        PackNet(2)
    with pytest.raises(ValueError, match=r"`train_mask` is 'seen', but PackNet keeps a head for each task"):
        PackNet(train_mask="seen")
    shared = replace(stream_info(3, 6), classes_per_task=((0, 1), (1, 2), (3, 4, 5)))
    with pytest.raises(ValueError, match=r"PackNet keeps a head for each task, but the classes \[1\] are in several"):
        PackNet().attach_once(Mixed(), shared)
