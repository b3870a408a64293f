"""What a user sees at the end of a run, in a terminal of 80 columns."""

import pytest
import torch
from rich.console import Console

from lightning_cl.metrics import ContinualReport, rich_table

NAN = float("nan")


def shown(report: ContinualReport, width: int = 80, **options) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(rich_table(report, **options))
    return [line.rstrip() for line in capture.get().splitlines()]


def stream(num_tasks: int) -> torch.Tensor:
    acc = torch.linspace(0.2, 0.9, num_tasks**2, dtype=torch.float64).view(num_tasks, num_tasks)
    acc[torch.ones_like(acc).triu(1).bool()] = NAN
    return acc


def test_matrix_in_percent_with_the_mean_of_seen_tasks():
    acc = torch.tensor([[1.0, NAN], [0.25, 0.5]])
    lines = shown(ContinualReport(class_il=acc, sizes=torch.tensor([30, 10])))
    assert lines[0] == "Accuracy (%), class-incremental"
    assert [line.split() for line in lines if line[:6].strip().isdigit()] == [
        ["1", "100", "100"],
        ["2", "25.0", "50.0", "37.5"],
    ]


def test_summary_says_the_variant():
    acc = torch.tensor([[0.6, NAN], [0.7, 0.5]])
    text = "\n".join(shown(ContinualReport(class_il=acc, task_il=acc, sizes=torch.tensor([30, 10]))))
    assert "Forgetting -10.0 (best earlier minus final), 0.0 (best of all minus final)" in text
    assert "Average accuracy 60.0 (65.0 over samples), incremental 60.0, just learned 55.0" in text
    assert "Backward transfer 10.0" in text
    assert "Task-incremental: average accuracy 60.0" in text


@pytest.mark.parametrize("num_tasks", [1, 2, 12, 13, 50, 200])
def test_no_number_is_cut_at_80_columns(num_tasks):
    lines = shown(ContinualReport(class_il=stream(num_tasks)))
    last = next(line for line in lines if line.split()[:1] == [str(num_tasks)])
    cells = [cell for cell in last.split() if cell != "…"]
    assert len(cells) == 1 + min(num_tasks, 11 if num_tasks > 12 else 12) + 1
    assert all("…" not in cell for cell in cells)


def test_a_wide_matrix_keeps_its_ends():
    lines = shown(ContinualReport(class_il=stream(20)), max_tasks=4)
    header = next(line for line in lines if "after" in line)
    assert header.split() == ["after", "1", "…", "19", "20", "mean"]


def test_undefined_is_a_dash_and_notes_are_shown():
    report = ContinualReport(
        class_il=torch.tensor([[0.5]]),
        sizes=torch.tensor([10]),
        evaluated=torch.tensor([[5]]),
        notes=["predictions depend on the batch"],
    )
    text = "\n".join(shown(report))
    assert "Forgetting - (" in text
    assert "Note: only part of the test data was used after task 1" in text
    assert "Note: predictions depend on the batch" in text


def test_neighbouring_partial_stages_are_joined():
    evaluated = torch.full((6, 6), 4).tril()
    evaluated[3] = 5
    report = ContinualReport(class_il=stream(6), sizes=torch.full((6,), 5), evaluated=evaluated)
    assert "after task 1-3, 5-6" in "\n".join(shown(report))


def test_label_spaces_are_named():
    acc = stream(2)
    assert shown(ContinualReport(task_il=acc))[0].endswith("task-incremental")
    assert shown(ContinualReport(class_il=acc, label_space="domain_il"))[0].endswith("domain-incremental")


def test_too_few_columns():
    with pytest.raises(ValueError, match="at least 2"):
        rich_table(ContinualReport(class_il=stream(3)), max_tasks=1)
