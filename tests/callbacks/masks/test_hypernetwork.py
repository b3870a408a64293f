"""TaskHypernetwork: layers compute with what it makes, its penalty typed out, and how far earlier tasks move."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.callbacks import TaskHypernetwork

from ..by_hand import make_stream, run
from .task_runs import IMAGES, Ends, Mixed, answers, told_run

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"embedding": 4, "hidden": 6, "chunk": 300}


class Watched(Mixed):
    """Keeps the terms of the loss, and what earlier tasks' weights were at each task's end."""

    def __init__(self):
        super().__init__()
        self.start = {name: p.detach().clone().double() for name, p in self.named_parameters()}
        self.terms, self.expected = [], []

    def training_step(self, batch, batch_idx):
        part = self.continual.parts["taskhypernetwork"]
        if part.finished.value:
            now = flat(part.network, part.finished.value)
            self.expected.append(0.5 * ((now - self.kept[: len(now)]) ** 2).sum() / len(now))
        return super().training_step(batch, batch_idx)

    def on_train_batch_end(self, *_):
        if "output_change" in self.continual.last_terms:
            self.terms.append(self.continual.last_terms["output_change"])

    def on_validation_end(self):
        part = self.continual.parts["taskhypernetwork"]
        if self.trainer.datamodule.task_ended:
            self.kept = flat(part.network, part.finished.value)


@torch.no_grad()
def flat(network, tasks):
    return torch.cat([network(network.tasks[task : task + 1]) for task in range(tasks)])


@pytest.fixture(scope="module")
def finished():
    torch.manual_seed(0)
    return told_run(TaskHypernetwork(0.5, **SMALL), Watched())


def test_the_penalty_is_how_far_earlier_weights_move(finished):
    module, _ = finished
    assert len(module.terms) == len(module.expected) == 12  # of the second and third task
    assert_close(torch.stack(module.terms), torch.stack(module.expected))
    assert module.terms[0] == 0  # at the start of a task
    assert module.terms[-1] > 0


def test_layers_compute_with_their_weights_and_what_is_made(finished):
    module, _ = finished
    part = module.continual.parts["taskhypernetwork"]
    plain = Mixed().double().eval()
    for task in range(3):
        own = {name: p for name, p in module.state_dict().items() if name in plain.state_dict()}
        for name, change in part.network.split(flat(part.network, 3)[task]).items():
            assert bool(change.any())
            own[f"{name}.weight"] = module.start[f"{name}.weight"] + change
        statistics = part.norms.of("body.1", task)
        plain.load_state_dict({**own, **{f"body.1.{piece}": rows for piece, rows in statistics.items()}})
        with torch.no_grad():
            assert_close(answers(module, task), plain(IMAGES)[:, 2 * task : 2 * task + 2])


def test_only_hypernetwork_and_head_are_trained(finished):
    module, _ = finished
    own = dict(module.named_parameters())
    assert {n for n, value in module.start.items() if not torch.equal(own[n], value)} == {"fc.weight", "fc.bias"}
    part = module.continual.parts["taskhypernetwork"]
    assert torch.equal(part.network.tasks, dict(part.before.items())["tasks"])


def moved(ends, module):
    return float((answers(module, 0) - ends.answers[0][0]).abs().max())


def test_a_strong_penalty_holds_earlier_answers():
    torch.manual_seed(0)
    free, held = (told_run(TaskHypernetwork(strength, **SMALL)) for strength in (0.0, 1e3))
    assert moved(held[1], held[0]) < moved(free[1], free[0]) / 5


def test_answers_follow_the_hypernetwork(finished):
    """What was made before is not kept longer than it holds, also not by a copy."""
    module, _ = finished
    twin = copy.deepcopy(module)
    before = answers(twin, 1)
    with torch.no_grad():
        twin.continual.parts["taskhypernetwork"].network.out.bias.add_(0.1)
    assert not torch.equal(answers(twin, 1), before)
    assert torch.equal(answers(module, 1), before)


def test_samples_find_their_task():
    torch.manual_seed(0)
    ends = Ends()
    module = run(TaskHypernetwork(0.5, task_by="entropy", **SMALL), net=Mixed(), callbacks=[ends], stream=make_stream())
    with torch.no_grad():
        found = module.eval()(IMAGES).argmax(1)
    each = torch.stack([answers(module, task) for task in range(3)])
    task = torch.distributions.Categorical(logits=each).entropy().argmin(0)
    assert torch.equal(found, 2 * task + each[task, torch.arange(len(task))].argmax(-1))
