"""The method of the page "Write your own method": its mathematics, and the conformance suite on the page's code."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from documented import ROOT, blocks, documented_module
from torch import nn
from torch.testing import assert_close

from lightning_cl.callbacks import FineTuning

from . import test_frozen, test_modules, test_predictions, test_processes, test_protocol, test_resuming
from .modules import FOREIGN_TUPLE, PLAIN
from .runs import assert_same_bits, train

PAGE, NAME = "write_your_own_method.md", "path_integral"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def method(tmp_path_factory):
    return documented_module(PAGE, NAME, tmp_path_factory.mktemp("own")).PathIntegral


class Bowl(nn.Module):
    """A loss with a known gradient: ``sum(h * (w - goal) ** 2) / 2``."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, -1.0, 0.5]))
        self.h, self.goal = torch.tensor([1.0, 0.2, 0.0]), torch.zeros(3)

    def loss(self):
        return (self.h * (self.w - self.goal) ** 2).sum() / 2


def learn(part, bowl, index, steps, lr, **options):
    """One task by plain gradient descent, with the hooks where the Trainer calls them."""
    part.start_task(bowl, SimpleNamespace(index=index))
    optimizer = torch.optim.SGD(bowl.parameters(), lr=lr, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        bowl.loss().backward()
        part.edit_gradients(bowl, optimizer)
        optimizer.step()
        part.after_step(bowl, optimizer)
    part.end_task(bowl, None)


def kept(snapshot):
    return dict(snapshot.items())["w"]


def test_the_page_is_50_lines():
    lines = blocks(ROOT / "docs" / PAGE, "method", "python")[NAME].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 50


def test_the_path_is_the_fall_of_the_loss(method):
    bowl = Bowl()
    part = method(strength=0.0).build(bowl, None)
    before = bowl.loss().item()
    learn(part, bowl, 0, steps=2000, lr=1e-3)
    assert_close(float(kept(part.path).sum()), before - bowl.loss().item(), rtol=1e-3, atol=0)
    assert kept(part.path)[2] == 0  # this weight did nothing


def test_importance_of_one_step(method):
    bowl = Bowl()
    part = method(strength=0.0, damping=0.5).build(bowl, None)
    gradient = bowl.h * bowl.w.detach()
    learn(part, bowl, 0, steps=1, lr=0.1)
    assert_close(kept(part.importance), 0.1 * gradient**2 / ((0.1 * gradient) ** 2 + 0.5))  # equations 3 and 5


def test_what_raised_the_loss_is_not_important(method):
    bowl = Bowl()
    part = method(strength=0.0).build(bowl, None)
    learn(part, bowl, 0, steps=3, lr=0.1, maximize=True)
    assert kept(part.path)[0] < 0
    assert kept(part.importance).eq(0).all()


def test_what_was_important_is_pulled_back(method):
    bowl = Bowl()
    part = method(strength=0.7).build(bowl, None)
    learn(part, bowl, 0, steps=50, lr=0.1)
    anchor, importance = bowl.w.detach().clone(), kept(part.importance).clone()
    bowl.goal = torch.tensor([5.0, 5.0, 5.0])
    bowl.h = torch.ones(3)
    learn(part, bowl, 1, steps=500, lr=0.1)
    # Where the gradient of loss and penalty (equation 4) is zero:
    assert_close(bowl.w.detach(), (bowl.goal + 2 * 0.7 * importance * anchor) / (1 + 2 * 0.7 * importance))
    assert bool((kept(part.importance) >= importance).all())


def test_without_strength_it_is_fine_tuning(method, tmp_path):
    plain = train(PLAIN, FineTuning(train_mask="task", reset_optimizer=True), tmp_path)
    result = train(PLAIN, method(strength=0.0), tmp_path).result()
    assert_same_bits({k: v for k, v in result.items() if "/continual.parts." not in k}, plain.result())


def test_the_suite_takes_the_class(method, finished, tmp_path):
    test_modules.test_one_fit_runs_the_whole_stream(method, PLAIN, finished)
    test_modules.test_names_of_the_module_stay(method, FOREIGN_TUPLE)
    test_frozen.test_rows_of_other_tasks_stay(method, "adamw", finished)
    test_predictions.test_the_matrix_counts_plain_predictions(method, PLAIN, finished)
    test_protocol.test_the_protocol_is_kept_and_the_run_is_the_same(method, PLAIN, finished, tmp_path)


def test_two_processes_equal_one(method, tmp_path):
    test_processes.test_two_processes_equal_one(method, PLAIN, tmp_path)


def test_resume_is_invisible(method, tmp_path):
    def whole(method):
        run = train(PLAIN, method(), tmp_path, dropout=test_resuming.DROPOUT)
        return run.result(), run.trainer.optimizers[0].state_dict()

    test_resuming.test_resume_is_invisible(method, PLAIN, whole, tmp_path)


@pytest.mark.slow
def test_the_whole_suite_by_the_page_s_command(method, tmp_path):
    documented_module(PAGE, NAME, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LIGHTNING_CL_METHODS": f"{NAME}:PathIntegral"}
    command = [sys.executable, "-m", "pytest", "-q", "tests/conformance", "-k", "PathIntegral"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
