"""Piggyback and SupSup: frozen weights, a mask for each task, and that a task's answers stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import ContinualCallback, Piggyback, SupSup
from lightning_cl.nn import pack_bits

from ..by_hand import make_stream
from .task_runs import IMAGES, Mixed, assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")
METHODS = [Piggyback(0.02, 0.005), SupSup(0.6, weights="given")]


def attached(method, net=None):
    torch.manual_seed(0)
    net = (net or Mixed()).double()
    method.attach_once(net, make_stream().info)
    (part,) = net.continual.parts.values()
    return net, part


class Fresh(Mixed):
    """Keeps what it was made of."""

    def __init__(self):
        super().__init__()
        self.start = {name: p.detach().clone().double() for name, p in self.named_parameters()}
        self.statistics = []

    def training_step(self, batch, batch_idx):
        self.statistics.append(self.body[1].running_mean.clone())
        return super().training_step(batch, batch_idx)


@pytest.fixture(scope="module", params=METHODS, ids=lambda m: type(m).__name__)
def finished(request):
    torch.manual_seed(0)
    return told_run(request.param, Fresh())


def test_answers_for_earlier_tasks_stay(finished):
    assert_earlier_answers_stay(*finished)


def test_only_scores_head_and_norms_are_trained(finished):
    module, _ = finished
    moved = {n for n, p in module.named_parameters() if n in module.start and not torch.equal(p, module.start[n])}
    norms = {"body.1.weight", "body.1.bias"} if "piggyback" in module.continual.parts else set()
    assert moved == {"fc.weight", "fc.bias"} | norms


def test_batch_norms_begin_anew_in_every_task(finished):
    module, _ = finished
    assert len(module.statistics) == 18
    for task in range(3):
        assert not module.statistics[6 * task].any()
        assert module.statistics[6 * task + 1].any()
    (part,) = module.continual.parts.values()
    rows = part.norms.get_buffer("body/1/running_mean")
    assert len(rows.unique(dim=0)) == 4  # of the start and of three tasks


def test_a_bit_for_each_weight_and_task(finished):
    module, _ = finished
    (part,) = module.continual.parts.values()
    for name in part.layers:
        bits, weight = part.bits.get_buffer(name.replace(".", "/")), module.get_submodule(name).weight
        assert bits.dtype == torch.uint8
        assert bits.shape == (3, -(-weight.numel() // 8))
        masks = [part.mask(name, task) for task in range(3)]
        assert not torch.equal(masks[0], masks[1])


def test_all_on_is_the_network_itself():
    torch.manual_seed(0)
    plain = Mixed().double().eval()
    net, _ = attached(Piggyback())
    net.eval().continual.task = 0
    with torch.no_grad():
        assert torch.equal(net(IMAGES)[:, :2], plain(IMAGES)[:, :2])


def test_a_weight_is_off_after_fifty_steps_of_one_sign():
    _, part = attached(Piggyback())
    optimizer = torch.optim.Adam([part.scores["up"]], lr=1e-4)
    on = 0
    while bool(part.mask("up", 0).any()):
        optimizer.zero_grad()
        (0.3 * part.mask("up", 0)).sum().backward()
        optimizer.step()
        on += 1
        assert on <= 52
    assert on >= 50


def test_the_gradient_goes_straight_to_the_scores():
    net, part = attached(Piggyback())
    net.continual.choice.current = 0
    net.up(IMAGES.flatten(1).repeat(1, 4)).sum().backward()
    # d/dm of sum over samples and units of m_ij w_ij x_j
    expected = net.up.weight * IMAGES.flatten(1).repeat(1, 4).sum(0)
    assert_close(part.scores["up"].grad, expected)
    assert net.up.weight.grad is None


def test_the_largest_scores_are_used():
    net, part = attached(SupSup(0.6))
    scores = part.scores["up"].detach()
    mask = part.mask("up", 0)
    off = int((1 - 0.6) * scores.numel())
    assert int((mask == 0).sum()) == off
    assert float(scores.abs()[mask == 0].max()) <= float(scores.abs()[mask == 1].min())
    net.continual.choice.current = 0
    for layer, name, inputs in ((net.up, "up", 64), (net.body[0], "body.0", 9)):
        used = part.substitutes(name, layer)["weight"]
        assert_close(used, part.mask(name, 0) * layer.weight.sign() * (2 / inputs) ** 0.5)
    mask.sum().backward()
    assert torch.equal(part.scores["up"].grad, scores.sign())


class Sure(Mixed):
    """One layer, whose masks can be written by hand."""

    def __init__(self):
        super().__init__()
        self.up, self.fc = nn.Linear(16, 7, bias=False), nn.Linear(7, 6, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(6, 7))
            self.up.weight.fill_(4.0)

    def forward(self, x):
        return self.fc(self.up(x.flatten(1)))


@pytest.mark.parametrize("how", ["one_shot", "binary"])
def test_the_task_is_found_by_its_entropy(how):
    net, part = attached(SupSup(0.5, weights="given"), Sure())
    (name,) = [n for n in part.layers if n == "up"]
    sample = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="no task has ended"):
        SupSup.infer_task(net, sample, how)
    for task in range(3):  # the mask of task t lets pixel t reach class 2 t, and the others all classes alike
        mask = torch.ones(7, 16, dtype=torch.bool)
        mask[:, task] = torch.arange(7) == 2 * task
        part.bits.get_buffer(name)[task] = pack_bits(mask)
    part.finished.set(3)
    for task in range(3):
        sample.zero_()[:, 0, 0, task] = 1.0
        with torch.inference_mode():
            assert SupSup.infer_task(net, sample.clone(), how) == task
    assert part.shares is None


class Infers(ContinualCallback):
    """Asks for the task of every task's samples at the end of the run."""

    def on_train_end(self, trainer, pl_module):
        stream, self.found = trainer.datamodule, []
        transform, source = stream.source.eval_transform(), stream.source
        for members in stream.eval_data("test").index:
            batch = torch.stack([transform(source.item("test", int(i))[0]) for i in members])
            self.found.append(SupSup.infer_task(pl_module, batch.double()))


def test_inference_leaves_the_module_as_it_was():
    infers = Infers()
    module, ends = told_run(SupSup(0.6, weights="given"), Mixed(), [infers])
    assert set(infers.found) <= {0, 1, 2}
    assert_earlier_answers_stay(module, ends)
