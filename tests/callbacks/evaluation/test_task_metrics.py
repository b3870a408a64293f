"""A metric of each task: what it is given, against torchmetrics on the samples of that task alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.regression import SpearmanCorrCoef

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.callbacks.evaluation.task_metrics import TaskMetrics, metric_value, rows_of
from lightning_cl.datamodules.stream_plan import EvalBatch
from lightning_cl.datamodules.task import NO_CLASSES, StreamInfo

TASKS = torch.tensor([0, 1, 1, 0, 1])
CPU = torch.device("cpu")


def info(classes: int = 0) -> StreamInfo:
    names = tuple(map(str, range(classes))) or NO_CLASSES
    return StreamInfo(2, len(names), names, (tuple(range(len(names))),) * 2, "none")


def samples(labels=None) -> EvalBatch:
    return EvalBatch(torch.arange(5), torch.zeros(5, dtype=torch.long) if labels is None else labels, TASKS)


def measured(metric, batch, outputs=None, module=None, classes=0, call=None, labels=None, seen=(0,), **options):
    module = module or nn.Identity()
    found = TaskMetrics(module, info(classes), metric, **options)
    found.start(seen, CPU, 1)
    if call is not None:
        module(call)
    found.add(batch, outputs, samples(labels), None)
    return found.finish()


def test_what_forward_answers_is_compared_with_the_targets_without_padding():
    x, y = torch.randn(7, 1), torch.randn(7)  # two rows of padding
    values, totals = measured(MeanSquaredError(), (x, y), call=x)
    expected = [(x[:5, 0] - y[:5])[task == TASKS].square().mean() for task in (0, 1)]
    assert_close(values, torch.stack(expected).double())
    assert totals.tolist() == [2, 3]


@pytest.mark.parametrize(
    "options",
    [{"outputs": {"preds": torch.arange(5.0), "target": torch.zeros(5)}}, {"stated": lambda m, b, o: (b[0], b[1] * 0)}],
)
def test_what_is_returned_or_stated_goes_first(options):
    values, _ = measured(MeanSquaredError(), (torch.arange(5.0), torch.ones(5)), call=torch.full((5,), 99.0), **options)
    assert_close(values, torch.tensor([(0 + 9) / 2, (1 + 4 + 16) / 3]).double())


def test_of_a_classifier_the_logits_of_seen_classes_are_measured():
    module, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(5, 4)
    y = torch.tensor([0, 1, 1, 0, 0])
    metric = MulticlassF1Score(3, average="micro")
    values, _ = measured(metric, (x, y), module=module, classes=3, call=x, labels=y, seen=(0, 1))
    chosen = module(x)[:, :2].argmax(1)
    assert_close(values, torch.stack([(chosen == y)[task == TASKS].double().mean() for task in (0, 1)]))


class Doubling(nn.Module):
    """No part of it is given what it is given itself."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)

    def forward(self, x):
        return self.net(2 * x)[:, 0]


@pytest.mark.parametrize("returned", ["nothing", "preds", "preds and target"])
@pytest.mark.parametrize("stepped", [False, True], ids=["one process", "a step in the place of forward"])
def test_samples_of_a_step_that_sorts_go_to_their_own_tasks(returned, stepped):
    """In the second form the step is called in the place of the module's ``forward``, as several processes do it."""
    x, y, rows = torch.randn(7, 2), torch.randn(7), torch.tensor([6, 2, 5, 0, 4, 1, 3])  # two rows of padding
    module, outputs = Doubling(), {}
    found = TaskMetrics(module, info(), MeanSquaredError())
    found.start((0,), CPU, 1)
    forward = module.forward

    def step(batch):
        module.forward = forward  # as Lightning has it, the module's own becomes an attribute
        preds = module(batch[0][rows])
        if returned != "nothing":
            outputs.update({"preds": preds, "target": batch[1][rows]})
        if returned == "preds":
            del outputs["target"]
        return outputs or None

    if stepped:
        module.forward = step
        module((x, y))
    else:
        step((x, y))
    found.add((x, y), outputs or None, samples())
    expected = [(module(x[:5]) - y[:5])[task == TASKS].square().mean() for task in (0, 1)]
    assert_close(found.finish()[0], torch.stack(expected).double())


@pytest.mark.parametrize("stated", [False, True], ids=["preds", "preds and target"])
def test_a_step_that_sorts_and_puts_its_answers_back_is_taken_at_its_word(stated):
    x, y, rows = torch.randn(7, 2), torch.randn(7), torch.tensor([6, 2, 5, 0, 4, 1, 3])
    module = Doubling()
    found = TaskMetrics(module, info(), MeanSquaredError())
    found.start((0,), CPU, 1)
    outputs = {"preds": module(x[rows])[rows.argsort()], **({"target": y} if stated else {})}
    found.add((x, y), outputs, samples())
    expected = [(module(x[:5]) - y[:5])[task == TASKS].square().mean() for task in (0, 1)]
    assert_close(found.finish()[0], torch.stack(expected).double())


def test_a_loss_that_is_a_part_of_the_module_does_not_hide_what_the_network_was_given():
    x, y, rows = torch.randn(7, 2), torch.randn(7), torch.tensor([6, 2, 5, 0, 4, 1, 3])
    module = Doubling()
    module.loss = nn.MSELoss()
    found = TaskMetrics(module, info(), MeanSquaredError())
    found.start((0,), CPU, 1)
    preds = module(x[rows])
    module.loss(preds, y[rows])
    found.add((x, y), {"preds": preds, "target": y[rows]}, samples())
    expected = [(module(x[:5]) - y[:5])[task == TASKS].square().mean() for task in (0, 1)]
    assert_close(found.finish()[0], torch.stack(expected).double())


def test_lists_and_dictionaries_are_split_by_sample():
    rows = torch.tensor([2, 0])
    boxes = [{"boxes": torch.full((n, 4), float(n))} for n in range(3)]
    assert rows_of(boxes, rows) == [boxes[2], boxes[0]]
    assert rows_of({"a": torch.arange(3), "b": ["x", "y", "z"]}, rows)["b"] == ["z", "x"]
    with pytest.raises(ValueError, match="int has no row for each sample; return"):
        rows_of(3, rows)


def test_a_task_without_samples_is_not_measured_and_a_second_evaluation_begins_anew():
    found, zeros = TaskMetrics(nn.Identity(), info(), MeanSquaredError()), torch.zeros(5, dtype=torch.long)
    for _ in range(2):
        found.start((0,), CPU, 1)
        found.add(None, {"preds": torch.ones(5), "target": torch.zeros(5)}, EvalBatch(zeros, zeros, zeros))
        values, totals = found.finish()
        assert totals.tolist() == [5, 0]
        assert values[0] == 1
        assert values[1].isnan()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"batch": (torch.zeros(5, 3), torch.zeros(5)), "call": torch.zeros(5, 3)},
            r"MeanSquaredError cannot take .* preds of torch.float32 of shape \(2, 3\) and target of torch.float32 of "
            r"shape \(2,\) \(.*\); return \{\"preds\"",
        ),
        (
            {"batch": (torch.zeros(5, 3), torch.zeros(5)), "outputs": torch.tensor(0.1)},
            r"nothing to measure: `validation_step` returned torch.float32 of shape \(\) and `forward` was not called; "
            r"return .* `ContinualEvaluation\(answers=...\)`",
        ),
        (
            {"batch": (torch.zeros(5, 3), torch.zeros(5)), "stated": lambda *_: torch.zeros(5)},
            r"`answers` gave torch.float32 of shape \(5,\) for MeanSquaredError; expected a pair \(preds, target\)",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_told_how(arguments, words):
    with pytest.raises(ValueError, match=words):
        measured(MeanSquaredError(), **arguments)


def test_values_that_are_no_number_are_refused():
    assert metric_value({"map": torch.tensor(0.5), "map_50": torch.tensor(0.7)}, None, "M") == 0.5
    assert metric_value({"map": torch.tensor(0.5), "map_50": torch.tensor(0.75)}, "map_50", "M") == 0.75
    with pytest.raises(ValueError, match="`metric_key` is 'mAP', but M gives 'map'; name one"):
        metric_value({"map": 0.5}, "mAP", "M")
    with pytest.raises(ValueError, match=r"M gives 3 values of shape \(3,\).*average=\"macro\""):
        metric_value(torch.zeros(3), None, "M")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metric": MeanSquaredError}, "`metric` is MeanSquaredError; .*its class was given, so call it"),
        ({"metric": "f1"}, "`metric` is str; expected a torchmetrics metric"),
        ({"metric": MulticlassConfusionMatrix(2)}, "MulticlassConfusionMatrix does not say whether higher values"),
        ({"higher_is_better": True}, "say something of a metric; give it as `metric`"),
    ],
)
def test_what_is_no_metric_or_has_no_direction_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ContinualEvaluation(**arguments)


def test_the_direction_is_the_metric_s_own_or_stated():
    assert not ContinualEvaluation(metric=MeanSquaredError()).higher_is_better
    assert ContinualEvaluation(metric=SpearmanCorrCoef()).higher_is_better
    assert ContinualEvaluation(metric=MulticlassConfusionMatrix(2), higher_is_better=True).higher_is_better


def test_a_matrix_of_another_metric_is_not_continued():
    evaluation = ContinualEvaluation(metric=MeanSquaredError())
    evaluation.begin(SimpleNamespace(), SimpleNamespace(info=info()), "test")
    state = evaluation.state_dict()
    with pytest.raises(
        ValueError, match=r"the checkpoint's matrix is of MeanSquaredError, but .* measures the accuracy"
    ):
        ContinualEvaluation().load_state_dict(state)
