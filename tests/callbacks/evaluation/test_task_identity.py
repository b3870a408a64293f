"""A stream that tells the task: batches of one task each, who is told, and what reports and cards say of it."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.callbacks import (
    AnytimeEvaluation,
    ContinualCallback,
    ContinualEvaluation,
    FineTuning,
    PackNet,
    ProtocolGuard,
)

from ..by_hand import make_stream, run
from ..masks.task_runs import Mixed

pytestmark = pytest.mark.filterwarnings("ignore")
TOLD = "task-incremental: the task of each test sample is given"


class Watch(ContinualCallback):
    """What the module is told in every batch of a validation, and the tasks of its samples."""

    def __init__(self):
        self.told, self.report, self.trained = [], None, set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trained.add((pl_module.continual.task, trainer.datamodule.task_index))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        samples = trainer.datamodule.eval_batch(batch_idx)
        self.told.append((trainer.datamodule.task_index, pl_module.continual.choice.told, samples.tasks.tolist()))

    def on_fit_end(self, trainer, pl_module):
        (evaluation,) = (c for c in trainer.callbacks if isinstance(c, ContinualEvaluation))
        self.report = evaluation.build_report(trainer, pl_module)


def watched(method, stream, **options):
    watch, guard = Watch(), ProtocolGuard(probe=9, print_card=False)
    evaluation = ContinualEvaluation(report=False, print_table=False)
    torch.manual_seed(0)
    module = run(method, net=Mixed(), callbacks=[watch, guard, evaluation], stream=stream, **options)
    return module, watch, guard.card, evaluation


@pytest.fixture(scope="module")
def told():
    return watched(PackNet(0.5), make_stream(task_identity=True, eval_batch_size=3))


def test_every_batch_is_of_the_task_that_is_told(told):
    _, watch, _, evaluation = told
    assert all(set(tasks) == {task} for _, task, tasks in watch.told)
    # four samples of each task in batches of 3 and 1, in the validations of six epochs
    assert [len(tasks) for _, _, tasks in watch.told] == [3, 1] * (2 * (1 + 2 + 3))
    assert evaluation.total.tolist() == [[4, 0, 0], [4, 4, 0], [4, 4, 4]]
    assert watch.trained == {(0, 0), (1, 1), (2, 2)}


def test_other_classes_than_the_task_s_own_cannot_win(told):
    evaluation = told[3]
    assert torch.equal(evaluation.correct["class_il"], evaluation.correct["task_il"])


def test_report_and_card_say_that_the_task_is_given(told):
    _, watch, card, _ = told
    assert TOLD in watch.report.notes
    assert watch.report.label_space == "task_il"
    for name in ("task identity", "batch mates"):
        assert (card[name].result, card[name].message) == ("not checked", TOLD)
    assert card.violations == []
    assert card["batch size"].result == card["labels"].result == card["claimed task"].result == "pass"


def test_an_evaluation_at_any_time_is_told_too():
    """At a task's end, before it is over, the answers are those of the validation that follows."""
    anytime = AnytimeEvaluation(20, report=False)
    torch.manual_seed(0)
    run(PackNet(0.5, retrain=0.5), net=Mixed(), callbacks=[anytime], stream=make_stream(task_identity=True))
    assert len(anytime.curve) == 6
    assert torch.equal(anytime.curve.correct[anytime.curve.task_end], anytime.curve.after_correct)
    assert int(anytime.curve.after_correct.sum()) > 12


def test_a_method_that_asks_for_nothing_is_evaluated_as_ever():
    results = [watched(FineTuning(), make_stream(task_identity=given)) for given in (True, False)]
    (module, watch, card, evaluation), (plain, _, _, expected) = results
    assert all(torch.equal(p, dict(plain.named_parameters())[name]) for name, p in module.named_parameters())
    assert torch.equal(evaluation.correct["class_il"], expected.correct["class_il"])
    assert TOLD not in watch.report.notes
    assert watch.report.label_space == "class_il"
    assert card["task identity"].result == card["batch mates"].result == "pass"


@pytest.mark.parametrize(("limit", "expected"), [(4, [2, 2, 4]), (5, [3, 4, 4]), (2, [0, 1, 1])])
def test_a_limited_validation_has_a_share_of_every_task(limit, expected):
    stream = make_stream(task_identity=True, eval_batch_size=3, epochs_per_task=1)
    _, watch, _, _ = watched(FineTuning(), stream, limit_val_batches=limit)
    last = [tasks for now, _, tasks in watch.told if now == 2]
    assert len(last) == limit
    assert all(len(set(tasks)) == 1 for tasks in last)
    assert sorted(sum(tasks.count(task) for tasks in last) for task in range(3)) == expected
