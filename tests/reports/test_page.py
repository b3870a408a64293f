"""The page of a report: a real table of the matrix, values with definitions, and text that is never markup."""

from __future__ import annotations

import torch

from lightning_cl.reports import ContinualReport
from lightning_cl.reports.page import page
from reports.pages import Page, anytime, make_report


def test_the_matrix_is_a_table_with_values():
    parsed = Page(page({"one": make_report()}))
    start = parsed.rows.index(["after", "1", "2", "3", "mean"])
    assert parsed.rows[start + 1 : start + 4] == [
        ["1", "80.0", "", "", "80.0"],
        ["2", "90.0", "80.5", "", "85.2"],
        ["3", "60.0", "84.0", "85.0", "76.3"],
    ]


def test_metrics_have_values_and_definitions_and_the_protocol_its_verdict():
    text = page({"one": make_report(anytime=anytime())})
    rows = Page(text).rows
    assert ["class-IL: average accuracy", "76.3"] in [row[:2] for row in rows]
    assert ["any time: A_AUC", "37.5", "mean of the periodic ones"] in rows
    assert ["any time: windowed forgetting 10", "12.5", "largest drop in a window"] in rows
    assert ["labels", "✗ fail"] in [row[:2] for row in rows]
    assert "Protocol: 1 violated" in text
    assert "ab" * 32 in text
    assert "lightning_cl" in text  # versions


def test_what_comes_from_a_run_is_text_and_never_markup():
    text = page({"<i>name</i>": make_report()})
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b>dog" not in text
    assert "<i>name" not in text
    assert "EWC&lt;u&gt;" in text
    assert "<u>" not in text
    assert "a note with &quot;quotes&quot; &amp; &lt;tags&gt;" in text


def test_tasks_without_test_samples_and_partial_evaluations_are_said():
    report = make_report(sizes=torch.tensor([20, 0, 20]), evaluated=torch.tensor([[20, 0, 0], [10, 0, 0], [20, 0, 20]]))
    text = page({"one": report})
    assert "Only part of the test data was used after task 2" in text
    assert ["3", "60.0", "84.0", "85.0", "72.5"] in Page(text).rows  # the mean leaves out the task without samples


def test_a_very_long_stream_shows_its_ends():
    acc = torch.full((300, 300), 0.5, dtype=torch.float64).tril()
    text = page({"long": ContinualReport(class_il=acc)})
    rows = Page(text).rows
    head = next(row for row in rows if row[:2] == ["after", "1"])
    assert len(head) == 1 + 100 + 1
    assert head[-2] == "300"
    assert head.count("…") == 1
    assert len(text) < 2_000_000
