"""ConTraCon: later tasks convolve the first one's weights, whose answers stay, with and without task identity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import nn

from lightning_cl.callbacks import ConTraCon, FineTuning
from lightning_cl.nn.convolved_weights import convolved
from lightning_cl.nn.views import fixed_views

from ..by_hand import Net, make_stream, run, weights
from .task_runs import IMAGES, Ends, Mixed, answers, assert_earlier_answers_stay, told_run

pytestmark = pytest.mark.filterwarnings("ignore")


class Attends(Mixed):
    """A small transformer: four tokens of four channels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.attn, self.fc = Attention(8, num_heads=2, qkv_bias=True), nn.Linear(8, 6)
        self.up, self.down, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        h = self.body(x.flatten(1, 2))
        h = h + self.attn(self.norm(h))
        return self.fc((h + self.down(torch.tanh(self.up(h)))).mean(1))


class First(Ends):
    """The weights at the end of every task."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_validation_end(self, trainer, pl_module):
        if trainer.datamodule.task_ended:
            self.weights.append(weights(pl_module))


@pytest.fixture(scope="module")
def finished():
    torch.manual_seed(0)
    kept = First()
    return (*told_run(ConTraCon(3), Attends(), [kept]), kept)


def test_answers_for_earlier_tasks_stay(finished):
    assert_earlier_answers_stay(*finished[:2])


def test_answers_for_earlier_tasks_stay_in_a_network_without_attention():
    module, ends = told_run(ConTraCon(3))
    assert set(module.continual.parts["contracon"].layers) == {"up", "down"}
    assert_earlier_answers_stay(module, ends)


def test_after_the_first_task_only_norms_and_head_move(finished):
    module, _, kept = finished
    first, last = kept.weights[0], kept.weights[-1]
    moved = {name for name, value in last.items() if not torch.equal(value, first[name])}
    assert moved == {"norm.weight", "norm.bias", "fc.weight", "fc.bias"}
    assert "attn.qkv" in module.continual.parts["contracon"].layers
    assert len(module.continual.parts["contracon"].layers) == 1


def test_a_task_computes_with_convolved_weights(finished):
    module, _, kept = finished
    part = module.continual.parts["contracon"]
    bank, own = part.banks["attn/qkv"], kept.weights[0]["attn.qkv.weight"]
    for task in (1, 2):
        plain = Attends().double().eval()
        plain.load_state_dict({**kept.weights[-1], **{k: v for k, v in kept.weights[task].items() if "norm" in k}})
        with torch.no_grad():
            plain.attn.qkv.weight.copy_(convolved(own, bank.kernels[task], bank.biases[task], bank.gates[task]))
            expected = plain(IMAGES)[:, 2 * task : 2 * task + 2]
        torch.testing.assert_close(answers(module, task), expected)
        assert not torch.equal(bank.kernels[task], bank.kernels[0])


def test_the_first_task_is_plain_training():
    """Without norms in the way: its weights end in the bits of fine-tuning."""
    plain = run(FineTuning(train_mask="task", reset_optimizer=True), stream=make_stream())
    module = run(ConTraCon(3), stream=make_stream(task_identity=True))
    assert all(torch.equal(module.ends[0][name], value) for name, value in plain.ends[0].items())


def test_samples_find_their_task(finished):
    torch.manual_seed(0)
    module = run(ConTraCon(3, task_by="entropy"), net=Attends(), stream=make_stream()).eval()
    with torch.no_grad():
        found = module(IMAGES).argmax(1)
        assert torch.equal(module(IMAGES[3:4]).argmax(1), found[3:4])
    each = torch.stack([answers(module, task) for task in range(3)])
    task = torch.distributions.Categorical(F.softmax(each, -1)).entropy().argmin(0)
    assert torch.equal(found, 2 * task + each[task, torch.arange(len(task))].argmax(-1))
    # the same network as with the task told: telling it changes evaluation alone
    assert torch.equal(answers(module, 2), answers(finished[0], 2))


def test_layers_are_chosen_by_name():
    module = Attends()
    ConTraCon(3, at=r"attn\.proj|up").attach_once(module, make_stream().info)
    assert module.continual.parts["contracon"].layers == ("up", "attn.proj")
    assert module.continual.parts["contracon"].banks["attn/proj"].gates.shape == (3, 2)
    with pytest.raises(ValueError, match=r"name ends as `at='nothing'` says; its linear layers are body, up, down"):
        ConTraCon(at="nothing").attach_once(Attends(), make_stream().info)


def test_a_module_without_linear_layers_is_refused():
    class Bare(Net):
        def __init__(self):
            super().__init__()
            self.body = nn.Flatten()
            self.fc = nn.Linear(16, 6)

    with pytest.raises(ValueError, match=r"Bare trains no `nn.Linear` besides its head whose weights ConTraCon could"):
        ConTraCon().attach_once(Bare(), make_stream().info)


def test_logits_of_several_views_are_averaged_before_a_task_is_chosen():
    torch.manual_seed(0)
    module = run(ConTraCon(3, task_by="entropy", views=4), net=Attends(), stream=make_stream()).eval()
    source = make_stream().source
    source.setup()
    transform = source.eval_transform()
    images = torch.stack([transform(source.item("test", i)[0]) for i in range(0, 12, 2)] + [IMAGES[0]]).double()
    views = fixed_views(images, 4)
    assert views.shape == (28, *images.shape[1:])
    assert torch.equal(views[:7], images)
    assert len({tuple(view.flatten().tolist()) for view in views.split(7)}) == 4
    each = torch.stack([answers(module, task, views).unflatten(0, (4, 7)).mean(0) for task in range(3)])  # (3, 7, 2)
    shares = F.softmax(each, -1)
    task = (-shares * shares.log()).sum(-1).argmin(0)
    with torch.no_grad():
        module.continual.task = None
        found = module(images)
        alone = torch.cat([module(image[None]) for image in images])
    expected = each[task, torch.arange(7)]
    rows = torch.arange(7)[:, None]
    torch.testing.assert_close(found[rows, torch.stack([2 * task, 2 * task + 1], 1)], expected)
    torch.testing.assert_close(found, alone)
    assert int(task.max()) > 0
    module.continual.parts["contracon"].views = 1
    with torch.no_grad():
        assert float((module(images) - found).abs().max()) > 1e-3
