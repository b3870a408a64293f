from __future__ import annotations

import torch

from lightning_cl.datamodules import Scenario
from lightning_cl.datamodules.scenarios.base import by_new_class


def test_a_sample_belongs_to_the_task_that_brings_its_class():
    labels = torch.tensor([0, 1, 2, 3, 1, 0])
    tasks = by_new_class(labels, [[2, 0], [0, 1], [2], [1, 0]])  # class 3 is in no task, the last two bring nothing new
    assert [task.tolist() for task in tasks] == [[0, 2, 5], [1, 4], [], []]
    assert all(task.dtype == torch.int64 for task in tasks)


def test_scenarios_evaluate_by_new_class_unless_they_say_otherwise():
    class Odd(Scenario):
        def train_tasks(self, labels, domains, num_classes, seed):
            return [torch.arange(len(labels))]

    assert Odd().order == "shuffled"
    assert [t.tolist() for t in Odd().eval_tasks(torch.tensor([1, 0]), None, 2, 0, [[0], [1]])] == [[1], [0]]
