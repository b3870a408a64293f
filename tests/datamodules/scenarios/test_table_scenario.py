from __future__ import annotations

import pytest
import torch

from lightning_cl.datamodules import ClassIncremental, DomainIncremental, StreamTable, TableScenario

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_stream_is_replayed_exactly(tmp_path):
    tasks = ClassIncremental(3).train_tasks(LABELS, None, 3, 7)
    StreamTable.from_tasks(tasks, LABELS).to_csv(tmp_path / "stream.csv")
    scenario = StreamTable.from_csv(tmp_path / "stream.csv").as_scenario()
    assert scenario.order == "shuffled"
    for seed in (0, 1):
        assert equal(scenario.train_tasks(LABELS, None, 3, seed), tasks)
    held = [LABELS[task].unique().tolist() for task in tasks]
    assert equal(scenario.eval_tasks(LABELS, None, 3, 0, held), tasks)


def test_order_of_arrival():
    tasks = [torch.tensor([3, 0]), torch.tensor([5, 1, 4])]
    table = StreamTable.from_tasks(tasks, LABELS)
    assert equal(table.as_scenario("stream").train_tasks(LABELS, None, 3, 0), tasks)
    assert equal(table.as_scenario().train_tasks(LABELS, None, 3, 0), [task.sort().values for task in tasks])


def test_evaluation_of_another_scenario():
    domains = torch.tensor([0, 0, 0, 1, 1, 1])
    tasks = DomainIncremental().train_tasks(LABELS, domains, 3, 0)
    scenario = StreamTable.from_tasks(tasks, LABELS).as_scenario(evaluation=DomainIncremental())
    assert equal(scenario.eval_tasks(LABELS, domains, 3, 0, [[0, 1, 2]] * 2), tasks)


def test_other_labels_are_refused():
    scenario = StreamTable.from_tasks([torch.tensor([0, 1, 2])], LABELS).as_scenario()
    with pytest.raises(
        ValueError, match=r"2 of 3 labels in the table differ.*sample 1, 1 in the table and 2 in the source"
    ):
        scenario.train_tasks(torch.tensor([0, 2, 1]), None, 3, 0)
    with pytest.raises(ValueError, match="has the sample 2 but the training split has 2 samples"):
        scenario.train_tasks(torch.tensor([0, 1]), None, 2, 0)


def test_wrong_order():
    with pytest.raises(ValueError, match="`order` is 'random'"):
        TableScenario(StreamTable.from_tasks([torch.tensor([0])], LABELS), "random")
