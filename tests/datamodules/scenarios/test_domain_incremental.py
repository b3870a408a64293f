from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import DomainIncremental


@given(st.lists(st.integers(0, 4), max_size=30), st.sampled_from(["natural", "shuffled"]), st.integers(0, 1000))
def test_one_task_per_domain(extra, rule, seed):
    domains = torch.tensor([*extra, 0, 1, 2, 3, 4])
    labels = torch.zeros_like(domains)
    scenario = DomainIncremental(rule)
    tasks = scenario.train_tasks(labels, domains, 1, seed)
    assert sorted(torch.cat(tasks).tolist()) == list(range(len(domains)))
    of_task = [domains[task].unique().tolist() for task in tasks]
    assert sorted(of_task) == [[0], [1], [2], [3], [4]]
    assert all(torch.equal(task, task.sort().values) for task in tasks)
    assert rule == "shuffled" or of_task == [[0], [1], [2], [3], [4]]
    # evaluation: by domain, in the order of the training tasks, although every class is in the first one
    present = torch.tensor([4, 2, 2])
    parts = scenario.eval_tasks(labels[:3], present, 1, seed, [[0]] * 5)
    assert [present[part].unique().tolist() for part in parts] == [d if d[0] in (2, 4) else [] for d in of_task]


def test_a_given_order():
    tasks = DomainIncremental([2, 0, 1]).train_tasks(torch.zeros(3), torch.tensor([0, 1, 2]), 1, 0)
    assert [task.tolist() for task in tasks] == [[2], [0], [1]]


def test_seed():
    domains = torch.arange(20)
    orders = [DomainIncremental("shuffled").train_tasks(domains, domains, 20, seed) for seed in (0, 1)]
    pinned = DomainIncremental("shuffled", seed=0).train_tasks(domains, domains, 20, 1)
    assert torch.cat(orders[0]).tolist() == torch.cat(pinned).tolist() != torch.cat(orders[1]).tolist()


def test_domains_are_needed():
    labels = torch.tensor([0, 1])
    for call in (
        lambda: DomainIncremental().train_tasks(labels, None, 2, 0),
        lambda: DomainIncremental().eval_tasks(labels, None, 2, 0, [[0, 1]]),
    ):
        with pytest.raises(
            ValueError, match="needs a domain per sample, but the source has none; pass `train_domains="
        ):
            call()


def test_domains_without_samples():
    with pytest.raises(ValueError, match=r"the domains are \[0, 2\]; number them 0\.\.1 without gaps"):
        DomainIncremental().train_tasks(torch.zeros(2), torch.tensor([0, 2]), 1, 0)


def test_an_order_that_misses_a_domain():
    with pytest.raises(ValueError, match=r"missing \[1\]"):
        DomainIncremental([0]).train_tasks(torch.zeros(2), torch.tensor([0, 1]), 1, 0)
