"""Means, deviations and refusals of a comparison, against NumPy and known answers; its files read back."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_cl.reports.comparison import COLUMNS, Comparison, Failure, Run, values_of
from lightning_cl.reports.comparison_plots import plot_comparison
from lightning_cl.reports.comparison_tables import markdown, rich_comparison, runs_csv
from lightning_cl.reports.report import ContinualReport

NAN = float("nan")
COST = {
    "seconds": 90.0, "forward_samples": 3000, "backward_samples": 1500, "memory_bytes": 2**20,
    "stored_bytes": 3 * 2**20,    "latency_ms": {"64": 0.5, "1": 2.0}, "device": "cpu",
}  # fmt: skip


def report(final: float = 0.5, stream: str = "a", **options) -> ContinualReport:
    """Two tasks: the first falls from 0.9 to ``final``, the second is learned to 0.7."""
    matrix = torch.tensor([[0.9, NAN], [final, 0.7]], dtype=torch.float64)
    return ContinualReport(class_il=matrix, stream_hash=stream * 64, **options)


def runs(*finals: float, method: str = "one", **options) -> list[Run]:
    return [Run(method, str(s), report(final, "abcdef"[s], **options)) for s, final in enumerate(finals)]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_values_of_a_report() -> None:
    found = values_of(report(0.5, facts={"RunCost": COST}, trainable_parameters=10, total_parameters=20))
    assert found["average_accuracy"] == pytest.approx(0.6)
    assert found["forgetting"] == pytest.approx(0.4)
    assert (found["minutes"], found["latency_single_ms"], found["latency_batch_ms"]) == (1.5, 2.0, 0.5)
    assert (found["trainable_parameters"], found["stored_bytes"]) == (10, 3 * 2**20)
    assert not {"a_auc", "harmonic_mean"} & set(found)
    assert set(found) <= {column.key for column in COLUMNS}


def test_online_and_few_shot_columns() -> None:
    anytime = {"metrics": {"a_auc": 0.25, "a_last": 0.5, "f_last": 0.125}}
    online = values_of(report(anytime=anytime))
    assert (online["a_auc"], online["a_last"], online["f_last"]) == (0.25, 0.5, 0.125)
    few = values_of(report(0.5, few_shot=True, sizes=torch.tensor([60, 20])))
    assert (few["base_accuracy"], few["novel_accuracy"]) == (0.5, pytest.approx(0.7))
    assert few["harmonic_mean"] == pytest.approx(2 * 0.5 * 0.7 / 1.2)
    both = Comparison("s", (Run("a", "0", report(anytime=anytime)), Run("b", "0", report())))
    assert both.headline().key == "average_accuracy"  # only one of them has A_AUC
    assert Comparison("s", (Run("a", "0", report(anytime=anytime)),)).headline().key == "a_auc"


def test_means_and_deviations(tmp_path: Path) -> None:
    finals = (0.5, 0.6, 0.1)
    comparison = Comparison("digits", (*runs(*finals, facts={"RunCost": COST}), *runs(0.3, method="two")))
    accuracies = (np.array(finals) + 0.7) / 2
    written = {row["method"]: row for row in read_csv(comparison.write(tmp_path) / "comparison.csv")}
    assert float(written["one"]["average_accuracy"]) == pytest.approx(accuracies.mean())
    assert float(written["one"]["average_accuracy_std"]) == pytest.approx(accuracies.std(ddof=1))
    assert written["one"]["runs"] == "3"
    assert written["two"]["average_accuracy_std"] == written["two"]["minutes"] == ""
    expected = f"{100 * accuracies.mean():.1f} ± {100 * accuracies.std(ddof=1):.1f}"
    assert f"| one | {expected} |" in (tmp_path / "comparison.md").read_text(encoding="utf-8")
    each = read_csv(tmp_path / "runs.csv")
    assert [float(row["average_accuracy"]) for row in each] == pytest.approx([*accuracies, 0.5])
    assert [row["stream_hash"][0] for row in each] == ["a", "b", "c", "a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison.csv", "comparison.md", "comparison.png", "runs.csv",
    ]  # fmt: skip
    notes = comparison.notes()
    assert "two: no result for seed 1, 2, so its mean is over 1" in notes


def test_what_a_reader_must_know_is_below_the_table() -> None:
    mine = Run("mine", "0", report(notes=["shared", "only mine"], facts={"RunCost": {"device": "cpu"}}))
    other = Run("other", "0", report(notes=["shared"], facts={"RunCost": {"device": "H200"}}))
    comparison = Comparison("s", (mine, other), (Failure("third", "0", "no memory"),), ("aligned",))
    assert comparison.notes() == [
        "one run each (seed 0): small differences mean nothing",
        "aligned",
        "third, seed 0, failed: no memory",
        "shared",
        "mine: only mine",
        "times measured on different devices: H200, cpu",
    ]


def test_other_streams_are_refused_with_both_hashes() -> None:
    with pytest.raises(ValueError, match=r"`one` \(seed 0\) ran on the stream a{16}, `two` \(seed 0\) on b{16}; only"):
        Comparison("s", (*runs(0.5), Run("two", "0", report(stream="b"))))
    with pytest.raises(ValueError, match=r"a{16}.*b{16}"):  # other seeds, and no stream in common
        Comparison("s", (*runs(0.5), Run("two", "1", report(stream="b"))))
    Comparison("s", (*runs(0.5, 0.6), Run("two", "1", report(stream="b"))))


def test_nothing_and_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no finished run"):
        Comparison("s", ())
    with pytest.raises(ValueError, match="`one` has two runs with the seed 0"):
        Comparison("s", (*runs(0.5), *runs(0.5)))


def test_tables_fit_a_terminal() -> None:
    from rich.console import Console

    facts = {"RunCost": {**COST, "seconds": 12345.0, "forward_samples": 9_999_000, "stored_bytes": 5e8}}
    wide = {"facts": facts, "few_shot": True, "sizes": torch.tensor([60, 20])}
    wide["anytime"] = {"metrics": {"a_auc": 0.25, "a_last": 0.5, "f_last": 0.125}}
    methods = [r for m in ("coda_prompt", "prototypes") for r in runs(0.5, 0.6, method=m, **wide)]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rich_comparison(Comparison("digits", tuple(methods))))
    text = console.export_text()
    assert "…" not in text
    assert "9999.0" in text
    assert "62.5±3.5" in text


def test_the_figure_shows_every_mean_and_deviation() -> None:
    comparison = Comparison("digits", (*runs(0.5, 0.6), *runs(0.9, 0.8, method="two")))
    figure, (accuracy, forgetting) = plot_comparison(comparison)
    assert figure.get_size_inches()[0] == pytest.approx(3.4)
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["one", "two"]
    means = [container.lines[0].get_xdata()[0] for container in accuracy.containers]
    assert means == pytest.approx([62.5, 77.5])
    (bar,) = accuracy.containers[0].lines[2]
    ends = bar.get_segments()[0][:, 0]
    deviation = 100 * np.std([0.6, 0.65], ddof=1)
    assert ends == pytest.approx([62.5 - deviation, 62.5 + deviation])
    assert [c.lines[0].get_xdata()[0] for c in forgetting.containers] == pytest.approx([35.0, 5.0])
    markers = {axes.containers[0].lines[0].get_marker() for axes in (accuracy, forgetting)}
    assert len(markers) == 2  # told apart without colour
    assert (accuracy.get_xlabel(), forgetting.get_xlabel()) == ("Accuracy (%)", "Forgetting (%)")


def test_ticks_keep_apart_beside_long_names() -> None:
    figure, axes = plot_comparison(Comparison("digits", tuple(runs(0.5, method="a_method_with_a_very_long_name"))))
    figure.canvas.draw()
    boxes = [label.get_window_extent() for ax in axes for label in ax.get_xticklabels()]
    assert len(boxes) == 6
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_markdown_has_a_cell_for_every_column() -> None:
    text = markdown(Comparison("digits", (*runs(0.5, facts={"RunCost": COST}), *runs(0.3, method="two"))))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows[:4]}) == len({line.count("|") for line in rows[4:]}) == 1
    assert "| two | - |" in text
    assert runs_csv(Comparison("digits", tuple(runs(0.5)))).count("\n") == 2


def test_another_metric_has_its_name_and_direction(tmp_path: Path) -> None:
    """Errors of 2.0 on the first task, then 6.0 and 4.0: their mean is 5.0, and 4.0 were lost."""
    errors = torch.tensor([[2.0, NAN], [6.0, 4.0]], dtype=torch.float64)
    measured = ContinualReport(class_il=errors, stream_hash="a" * 64, metric="MeanSquaredError", higher_is_better=False)
    comparison = Comparison("s", (Run("one", "0", measured), Run("two", "0", measured)))
    found = values_of(measured)
    assert (found["MeanSquaredError/average_value"], found["MeanSquaredError/forgetting"]) == (5.0, 4.0)
    assert "average_accuracy" not in found
    assert [column.key.rpartition("/")[2] for column in comparison.columns()] == [
        "average_value", "average_incremental_value", "forgetting",
    ]  # fmt: skip
    text = markdown(comparison)
    assert "| method | MeanSquaredError | MeanSquaredError AIA | MeanSquaredError forgetting |" in text
    assert "MeanSquaredError (lower is better)" in text
    assert "| one | 5.000 | 3.500 | 4.000 |" in text
    assert read_csv(comparison.write(tmp_path) / "comparison.csv")[0]["MeanSquaredError/average_value"] == "5.0"
    assert [ax.get_xlabel() for ax in plot_comparison(comparison)[1]] == [
        "MeanSquaredError", "MeanSquaredError forgetting",
    ]  # fmt: skip
    beside = Comparison("s", (Run("one", "0", measured), Run("two", "0", report())))
    assert beside.headline().key == "average_accuracy"
