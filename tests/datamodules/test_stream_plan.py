from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tiny_stream import NUM_CLASSES, NUM_TASKS, SIZES, make_source
from torch import Tensor

from lightning_cl.datamodules import ClassIncremental, DomainIncremental, Scenario, Source
from lightning_cl.datamodules.stream_plan import StreamLayout, lay_out, newly_seen

SCENARIO = ClassIncremental(num_tasks=NUM_TASKS, class_order=range(NUM_CLASSES))


class Given(Scenario):
    """Returns what it was made with, as a scenario of a user might."""

    def __init__(self, train: Sequence[Any], evaluation: Callable[..., list[Tensor]] | None = None) -> None:
        self.train = [torch.as_tensor(part, dtype=torch.int64) for part in train]
        self.evaluation = evaluation

    def train_tasks(self, labels: Tensor, domains: Any, num_classes: int, seed: int) -> list[Tensor]:
        return self.train

    def eval_tasks(self, *args: Any) -> list[Tensor]:
        return super().eval_tasks(*args) if self.evaluation is None else self.evaluation(*args)


def ready(**options: Any) -> Source:
    source = make_source(**options)
    source.setup()
    return source


def lay(scenario: Scenario = SCENARIO, source: Source | None = None, **options: Any) -> StreamLayout:
    return lay_out(source or ready(), scenario, 0, **options)


def test_samples_and_classes_of_each_task():
    layout = lay()
    assert [len(index) for index in layout.train_index] == [3 + 4, 5 + 6, 7 + 8]
    assert layout.info.classes_per_task == layout.new_classes == ((0, 1), (2, 3), (4, 5))
    assert (layout.info.num_tasks, layout.info.num_classes) == (NUM_TASKS, NUM_CLASSES)
    data = layout.evaluation["test"]
    assert layout.evaluation["val"] is data
    assert (data.split, len(data), [len(index) for index in data.index]) == ("test", 18, [6, 6, 6])
    batch = data.batch(torch.tensor([17, 0, 7]))
    assert (batch.labels.tolist(), batch.tasks.tolist()) == ([5, 0, 2], [2, 0, 1])


def test_the_table_is_the_training_stream():
    layout = lay()
    assert all(torch.equal(a, b) for a, b in zip(layout.table.tasks(), layout.train_index, strict=True))
    assert torch.equal(layout.table.label, ready().train_labels[layout.table.sample])


def test_val_split_is_held_out_of_the_training_data():
    source = ready()
    layout = lay(source=source, val_split=0.3)
    val = layout.evaluation["val"]
    trained, held = torch.cat(layout.train_index), torch.cat(val.index)
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(sum(SIZES)))
    assert val.split == "train"
    assert torch.bincount(source.train_labels[held]).tolist() == [round(0.3 * n) for n in SIZES]
    assert all(int(task) == int(source.train_labels[i]) // 2 for i, task in enumerate(val.task_of) if i in held)
    assert set(val.task_of[trained].tolist()) == {-1}
    assert len(layout.evaluation["test"]) == 18


def test_domains_are_split_with_the_labels():
    domains = {"train_domains": [i % 2 for i in range(sum(SIZES))], "test_domains": [i % 2 for i in range(18)]}
    layout = lay(DomainIncremental(), ready(**domains), val_split=0.3)
    for index, data in ((layout.train_index, None), (layout.evaluation["val"].index, "val")):
        assert [set((part % 2).tolist()) for part in index] == [{0}, {1}], data
    assert layout.new_classes == ((0, 1, 2, 3, 4, 5), ())


def test_newly_seen():
    assert newly_seen([(1, 3), (0, 1), (3,)]) == ((1, 3), (0,), ())


def test_a_task_that_brings_no_class_may_have_no_evaluation_sample():
    layout = lay(Given([range(33), [0, 1]]))
    assert [len(index) for index in layout.evaluation["test"].index] == [18, 0]


def test_fingerprint_is_of_training_evaluation_and_source():
    same = lay().info.fingerprint
    assert same == lay().info.fingerprint
    others = [
        lay(ClassIncremental(num_tasks=NUM_TASKS, class_order=[1, 0, 2, 3, 4, 5][::-1])),
        lay(val_split=0.3),
        lay(source=ready(class_names=tuple("abcdef"))),
        lay(Given(lay().train_index, lambda labels, *_: [(labels // 2 == t).nonzero().flatten() for t in (0, 2, 1)])),
    ]
    assert len({same, *(layout.info.fingerprint for layout in others)}) == 5


def test_a_label_outside_the_range_is_named():
    source = ready()
    source.test_labels = source.test_labels + 1
    with pytest.raises(ValueError, match=r"the test split has the class ids \[6\], but they must be integers 0..5"):
        lay(source=source)
    source = ready()
    source.train_labels = source.train_labels.clamp(min=1)
    with pytest.raises(ValueError, match=r"1 of 6 class ids have no training samples: 0 \('0'\)"):
        lay(source=source)


def test_tasks_that_do_not_divide_the_classes():
    with pytest.raises(ValueError, match="4"):
        lay(ClassIncremental(num_tasks=4))


def test_a_task_without_evaluation_samples_is_named():
    source = ready()
    source.test_labels = source.test_labels.clamp(max=3)
    with pytest.raises(ValueError, match=r"task\(s\) \[2\] have no evaluation sample in the test split"):
        lay(source=source)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], "Given gave 0 training tasks; expected at least one"),
        ([[0, 1], []], "Given gave task 1 no training sample"),
        ([[0], [5, 33]], r"Given gave task 1 the training positions 5\.\.33, but there are 33 samples"),
        ([[-1]], r"Given gave task 0 the training positions -1\.\.-1"),
    ],
)
def test_what_a_scenario_must_not_return_for_training(train, message):
    with pytest.raises(ValueError, match=message):
        lay(Given(train))


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ([[0]], "Given gave 1 evaluation tasks; expected 2"),
        ([[0], [18]], r"Given gave task 1 the evaluation positions 18\.\.18, but there are 18 samples"),
        ([[0, 1], [1]], "Given gave an evaluation sample to two tasks"),
    ],
)
def test_what_a_scenario_must_not_return_for_evaluation(evaluation, message):
    parts = [torch.tensor(part) for part in evaluation]
    with pytest.raises(ValueError, match=message):
        lay(Given([range(20), range(20, 33)], lambda *_: parts))


def test_a_scenario_learns_which_classes_each_task_holds():
    seen: list[Any] = []

    def evaluation(labels: Tensor, *rest: Any) -> list[Tensor]:
        seen.append(rest[-1])
        return [torch.arange(9), torch.arange(9, 18)]

    lay(Given([range(12), range(7, 33)], evaluation))
    assert seen == [((0, 1, 2), (2, 3, 4, 5))]
