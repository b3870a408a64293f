"""The torchmetric counts exactly, and a curve says what its counts say."""

import json
import os

import pytest
import torch
import torch.distributed as dist
from conformance.runs import in_forked_processes
from torch import Tensor

from lightning_cl.metrics import AnytimeAccuracy, AnytimeCurve, ContinualReport, read_report
from lightning_cl.metrics import functional as F
from lightning_cl.reports.tables import summary_lines

NAN = float("nan")


# ---------------------------------------------------------------------- the torchmetric


def feed(metric: AnytimeAccuracy, share: slice = slice(None), batch_size: int = 7) -> list[float]:
    """Three evaluations of 10, 23 and 5 samples; their accuracies."""
    generator, expected = torch.Generator().manual_seed(0), []
    for seen, count in ((100, 10), (203, 23), (300, 5)):
        preds, target = torch.randint(3, (2, count), generator=generator)
        expected.append((preds == target).double().mean().item())
        for rows in torch.arange(count)[share].split(batch_size) or [torch.arange(0)]:
            metric.update(seen, preds[rows], target[rows])
    return expected


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_area_is_the_mean_over_evaluations_not_over_samples(batch_size):
    metric = AnytimeAccuracy()
    accuracies = feed(metric, batch_size=batch_size)
    assert metric.compute().item() == pytest.approx(sum(accuracies) / 3)
    assert metric.samples_seen.tolist() == [100, 203, 300]
    assert metric.total.tolist() == [10, 23, 5]


def test_logits_reset_and_forward():
    logits, target = torch.randn(30, 5), torch.randint(5, (30,))
    metric, labels = AnytimeAccuracy(), AnytimeAccuracy()
    metric.update(1, logits, target)
    labels.update(1, logits.argmax(1), target)
    assert metric.compute() == labels.compute()
    metric.reset()
    metric.update(1, target, target)
    assert metric.compute() == 1
    assert metric(2, (target + 1) % 5, target) == 0  # of this batch
    assert metric.compute() == 0.5


def test_processes_add_up(tmp_path):
    def rank() -> None:
        dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=2)
        metric = AnytimeAccuracy()
        feed(metric, slice(0, 7) if dist.get_rank() == 0 else slice(7, None))  # one has nothing of the last evaluation
        torch.save(metric.compute(), tmp_path / f"{dist.get_rank()}.pt")
        dist.destroy_process_group()

    assert in_forked_processes(rank, count=2) == [0, 0]
    alone = AnytimeAccuracy()
    feed(alone)
    for index in (0, 1):
        assert torch.load(tmp_path / f"{index}.pt") == alone.compute()


def test_plot_is_the_curve():
    metric = AnytimeAccuracy()
    accuracies = feed(metric)
    _, ax = metric.plot()
    assert list(ax.lines[0].get_xdata()) == [100, 203, 300]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([100 * a for a in accuracies])
    _, ax = metric.plot(torch.tensor([0.1, 0.2, 0.3]))
    assert list(ax.lines[0].get_ydata()) == pytest.approx([10, 20, 30])


def test_wrong_updates():
    metric = AnytimeAccuracy()
    metric.update(10, torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="`samples_seen` is 9 after 10"):
        metric.update(9, torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="do not agree"):
        metric.update(11, torch.tensor([1, 2]), torch.tensor([1]))


def test_before_any_update_it_is_nan_and_warns():
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert AnytimeAccuracy().compute().isnan()


# ---------------------------------------------------------------------- the curve


def counts(correct: list[int], total: list[int]) -> Tensor:
    """Two tasks of one class each."""
    return torch.tensor([correct * 2, total * 2])


def example() -> AnytimeCurve:
    """The worked example of the stability gap in percent; task ends at the third and the last evaluation."""
    curve = AnytimeCurve.empty(2, 2)
    first, second = (30, 70, 90, 50, 40, 60, 70), (0, 0, 0, 20, 60, 80, 85)
    for n, (a, b) in enumerate(zip(first, second, strict=True)):
        task, end = int(n > 2), n == 2
        row = counts([a, b], [100, 100 * task])
        curve.add(10 * (n + 1), task, 1 + task, row, online=(n, 2 * n + 2), task_end=end)
        if n in (2, 6):
            curve.finish_task(task, row)
    curve.add(70, 1, 2, counts([0, 0], [100, 100]), task_end=True)  # the same batch: no evaluation of its own
    return curve


def test_the_worked_example():
    curve = example()
    assert len(curve) == 7
    assert curve.periodic.tolist() == [True, True, False, True, True, True, True]
    assert curve.task_ends == [30, 70]
    assert curve.accuracy.tolist() == pytest.approx([0.3, 0.7, 0.9, 0.35, 0.5, 0.7, 0.775])
    values = curve.summary(windows=(2, 3))
    assert values["a_auc"] == pytest.approx((0.3 + 0.7 + 0.35 + 0.5 + 0.7 + 0.775) / 6)
    assert values["min_acc"] == pytest.approx(0.40)
    assert values["wc_acc"] == pytest.approx(0.625)
    assert values["windowed_forgetting_2"] == pytest.approx(0.20)
    assert values["windowed_plasticity_3"] == pytest.approx(0.60)
    assert values["a_avg"] == pytest.approx((0.9 + 0.775) / 2)
    assert values["a_last"] == pytest.approx(0.775)
    assert values["f_last"] == pytest.approx(0.20)
    assert values["prequential_accuracy"] == pytest.approx(6 / 14)


def test_a_curve_without_points_defines_nothing():
    curve = AnytimeCurve.empty(3, 5)
    assert set(curve.summary().values()) == {None}
    assert curve.section({})["curve"]["accuracy"] == []
    assert curve.task_ends == []


def test_state_survives_and_is_a_copy(tmp_path):
    curve = example()
    torch.save(curve.state_dict(), tmp_path / "curve.pt")
    again = AnytimeCurve.from_state_dict(torch.load(tmp_path / "curve.pt", weights_only=True))
    assert again.section({}) == curve.section({})
    saved = curve.state_dict()
    curve.finish_task(0, counts([1, 1], [100, 100]))
    assert saved["after_correct"][0, 0] == 90  # a checkpoint that is still being written
    copied = AnytimeCurve.from_state_dict(curve.state_dict())
    copied.finish_task(0, counts([2, 2], [100, 100]))
    assert curve.after_correct[0, 0] == 1


def test_a_longer_stream_goes_on_with_the_curve():
    curve, longer = example(), example().extended(3, 5)
    assert longer.trace.shape == (7, 3)
    assert longer.class_accuracy.shape == (3, 5)
    assert longer.summary() == curve.summary()
    assert curve.extended(1, 1).state_dict().keys() == curve.state_dict().keys()
    longer.add(80, 2, 5, torch.ones(2, 8, dtype=torch.long))
    assert longer.trace[-1].tolist() == [1, 1, 1]


def test_section_is_plain_and_says_what_a_number_is(tmp_path):
    section = example().section({"every_n_samples": 10, "windows": (2, 3)}, windows=(2, 3))
    assert json.loads(json.dumps(section, allow_nan=False)) == section
    assert section["task_accuracy"][0] == [0.3, None]
    names = {name.removesuffix("_2").removesuffix("_3") for name in section["metrics"]}
    assert names == section["definitions"].keys()
    report = ContinualReport(class_il=torch.eye(2), anytime=section)
    report.write(tmp_path)
    assert read_report(tmp_path).anytime == section
    ContinualReport(class_il=torch.eye(2)).write(tmp_path, keep_previous=False)
    assert not list(tmp_path.glob("anytime*"))


def test_the_table_says_the_main_numbers():
    report = ContinualReport(class_il=torch.eye(2), anytime=example().section({}))
    (line,) = (line for line in summary_lines(report) if line.startswith("At any time"))
    assert "A_AUC 55.4" in line
    assert "F_Last 20.0" in line
    assert "WC-ACC 62.5" in line
    assert not any("any time" in line for line in summary_lines(ContinualReport(class_il=torch.eye(2))))


def test_a_task_of_which_nothing_was_evaluated_makes_no_hole():
    curve = AnytimeCurve.empty(2, 2)
    for n in range(3):
        curve.add(10 * n, int(n == 2), 1, counts([5, 0], [10, 0]))
    assert curve.summary()["wc_acc"] == pytest.approx(0.5)
    assert F.average_anytime_accuracy(curve.trace).item() == pytest.approx(0.5)
