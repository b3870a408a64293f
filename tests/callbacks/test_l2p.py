from __future__ import annotations

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import in_forked_processes
from conformance.runs import train as fit
from tiny import TinyModule, images, stream_info, task_of
from torch.testing import assert_close

from lightning_cl.callbacks import L2P

from .vit_base import num_trained

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")
INFO = stream_info(5)
PLUS = {"pool_size": 30, "prompt_length": 20, "top_k": 5, "form": "prefix", "init_range": (0, 1)}


@pytest.mark.parametrize(
    ("options", "num_classes", "published"),
    [
        ({"prompt_length": 5, "top_k": 5}, 100, 122_980),  # the PyTorch port, CIFAR-100
        ({"prompt_length": 5, "top_k": 5}, 200, 199_880),  # the PyTorch port, ImageNet-R
        ({}, 100, 161_380),  # the authors' code, CIFAR-100
        (PLUS, 200, 637_640),  # L2P++
        ({**PLUS, "layers": (0, 1, 2, 3, 4)}, 200, 2_573_000),  # Deep L2P++
    ],
    ids=["port-cifar100", "port-imagenet-r", "authors", "plus", "deep-plus"],
)
def test_the_number_of_trained_parameters_is_the_published_one(options, num_classes, published):
    assert num_trained(L2P(**options), num_classes) == published


def used_prompts(pull_weight):
    """Ids that any image of five tasks is answered with, each at the end of its task."""
    torch.manual_seed(0)
    module, used = TinyModule(), set()
    L2P(pool_size=10, prompt_length=2, top_k=3, pull_weight=pull_weight).attach_once(module, INFO)
    optimizer, select = module.configure_optimizers(), module.prompts.select

    def remember(similarity):
        ids = select(similarity)
        if not module.training:
            used.update(ids.flatten().tolist())
        return ids

    module.prompts.select = remember
    for index in range(5):
        module.on_task_start(task_of(INFO, index))
        labels = torch.tensor(INFO.classes_per_task[index]).repeat(4)
        kind = 3 * images(1) + images(1, seed=index)  # photographs are alike, and more so within a task
        for step in range(6):
            optimizer.zero_grad()
            batch = (kind + 1.5 * images(8, seed=100 * index + step), labels)
            module.train().training_step(batch, step).backward()
            optimizer.step()
        module.eval()(kind + 1.5 * images(20, seed=99 - index))
    return used


def test_few_prompts_serve_all_tasks():  # the rich get richer: known of L2P, and no fault of the code
    assert len(used_prompts(1.0)) <= 4 < len(used_prompts(0.0))


def test_the_pull_term_joins_the_loss():
    losses = []
    for weight in (0.0, 0.7):
        torch.manual_seed(0)
        module = TinyModule()
        callback = L2P(pool_size=6, prompt_length=2, top_k=2, pull_weight=weight)
        callback.attach_once(module, INFO)
        assert callback.adds_loss == (weight > 0)
        module.on_task_start(task_of(INFO, 0))
        losses.append(module.train().training_step((images(2), torch.tensor([0, 1])), 0))
    # keys drawn from [0, 0.01] are all alike, and so is each one's similarity with a query
    assert 1e-3 < abs(losses[0] - losses[1]).item() < 0.7 * 2


def test_two_processes_vote_together_and_sum_as_one(tmp_path):
    options = {"optimizer": "sgd", "precision": "64-true"}

    def run(**processes):
        plus = L2P(
            pool_size=6,
            prompt_length=4,
            top_k=2,
            pull_weight=0.1,
            pull_reduction="sum",
            form="prefix",
            layers=(0, 1),
            batch_vote="always",
            init_range=(-1, 1),
        )
        return fit(PLAIN, plus, tmp_path, **options, **processes)

    def rank():
        finished = run(strategy="ddp", devices=2)
        torch.save(finished.result(), tmp_path / f"rank{finished.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    together = torch.load(tmp_path / "rank0.pt", weights_only=True)
    for name, value in run().result().items():
        assert_close(together[name], value, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")
