"""Which classes are taken for which: counted as scikit-learn counts, and told by name."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.metrics import confusion_matrix
from tiny import TinyModule, stream_info

from lightning_cl.callbacks.evaluation.task_counts import TaskCounts
from lightning_cl.datamodules.stream_plan import EvalBatch
from lightning_cl.reports import ContinualReport
from lightning_cl.reports.confusion import (
    class_accuracy_csv,
    confused_lines,
    confusion_csv,
    most_confused,
    plot_confusion,
)
from lightning_cl.reports.report import read
from lightning_cl.reports.tables import summary_lines

COUNTS = torch.tensor([[5, 1, 0], [3, 2, 0], [0, 0, 0]])
NAMES = ["cat", "dog", "owl"]


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_pairs_are_told_by_name_most_often_first():
    assert most_confused(COUNTS) == [(1, 0, 3, 5), (0, 1, 1, 6)]
    assert confused_lines(COUNTS, NAMES, 1) == ["dog taken for cat: 3 of 5"]
    assert confused_lines(COUNTS, []) == ["1 taken for 0: 3 of 5", "0 taken for 1: 1 of 6"]
    assert rows(confusion_csv(COUNTS, NAMES)) == [["class", "cat", "dog"], ["cat", "5", "1"], ["dog", "3", "2"]]
    assert rows(class_accuracy_csv(COUNTS, NAMES))[1:] == [["cat", "5", "6", str(5 / 6)], ["dog", "2", "5", "0.4"]]
    assert most_confused(torch.eye(3, dtype=torch.long)) == []


def test_the_picture_has_names_where_there_is_room():
    _, ax = plot_confusion(COUNTS, NAMES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[500 / 6, 100 / 6], [60.0, 40.0]])


def test_the_report_keeps_it(tmp_path):
    report = ContinualReport(class_il=torch.tensor([[0.5]]), confusion=COUNTS, class_names=NAMES)
    report.write(tmp_path)
    assert torch.equal(read(tmp_path).confusion, COUNTS)
    assert (tmp_path / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert rows((tmp_path / "class_accuracy.csv").read_text())[2][0] == "dog"
    assert "Most confused: dog taken for cat: 3 of 5; cat taken for dog: 1 of 6" in summary_lines(report)
    ContinualReport(class_il=torch.tensor([[0.5]])).write(tmp_path, keep_previous=False)
    assert not (tmp_path / "confusion_matrix.csv").exists()


def test_answers_are_counted_as_scikit_learn_counts_them():
    module, info = TinyModule(), stream_info()
    counts = TaskCounts(module, info, None)
    counts.start(range(10), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    labels, answers = (torch.randint(10, (40,), generator=generator) for _ in range(2))
    for part in torch.arange(40).split(16):
        counts.add(EvalBatch(part, labels[part], labels[part] // 2), torch.zeros(len(part), 10), answers[part])
    none = torch.tensor([-1, 99])  # no classes: not counted
    counts.add(EvalBatch(part[:2], labels[:2], labels[:2] // 2), torch.zeros(2, 10), none)
    trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda values, reduce_op: values))
    found = counts.confusion(trainer)
    assert found.tolist() == confusion_matrix(labels, answers, labels=range(10)).tolist()
