"""Figures show what the matrix holds, at every size, and leave pyplot alone."""

import ast
import io
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

import lightning_cl.reports
from lightning_cl.metrics import AccuracyMatrix, plot_accuracy_curves, plot_accuracy_matrix, plot_metric_curve
from lightning_cl.reports.drawing import ink, spaced, spread

NAN = float("nan")


def stream(num_tasks: int) -> torch.Tensor:
    acc = torch.linspace(0.2, 0.9, num_tasks**2, dtype=torch.float64).view(num_tasks, num_tasks)
    acc[torch.ones_like(acc).triu(1).bool()] = NAN
    return acc


def overlaps(figure, texts) -> int:
    renderer = figure.canvas.get_renderer()
    # of the words alone, without the lines that lead to them
    boxes = [Text.get_window_extent(text, renderer) for text in texts if text.get_text()]
    return sum(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 10, 20, 50])
@pytest.mark.parametrize("plot", [plot_accuracy_matrix, plot_accuracy_curves])
def test_figure_of_column_width_with_everything_inside(plot, num_tasks):
    figure, ax = plot(stream(num_tasks))
    assert figure.get_size_inches()[0] == pytest.approx(3.4)
    figure.savefig(io.BytesIO())  # lays it out
    inside = figure.get_tightbbox(figure.canvas.get_renderer())
    assert inside.x0 >= -0.01
    assert inside.x1 <= 3.41
    assert inside.y0 >= -0.01
    assert overlaps(figure, [t for t in ax.texts if t.get_text()]) == 0
    for axis in (ax.xaxis, ax.yaxis):
        assert overlaps(figure, [t for t in axis.get_ticklabels() if t.get_visible()]) == 0


def test_cells_print_percent_where_measured():
    acc = torch.tensor([[1.0, NAN], [0.1234, 0.0]])
    _, ax = plot_accuracy_matrix(acc)
    assert {tuple(map(int, t.get_position())): t.get_text() for t in ax.texts} == {
        (0, 0): "100",
        (0, 1): "12.3",  # x is the evaluated task, y the stage
        (1, 1): "0.0",
    }
    assert ax.get_xlabel() == "Evaluated on task"
    assert ax.get_ylabel() == "After task"


def test_colour_bar_is_as_high_as_the_matrix():
    figure, ax = plot_accuracy_matrix(stream(5))
    figure.savefig(io.BytesIO())
    (bar,) = ax.child_axes
    assert bar.get_window_extent().height == pytest.approx(ax.get_window_extent().height, abs=1)


def test_many_tasks_print_nothing_unreadable():
    assert {t.get_text() for t in plot_accuracy_matrix(stream(20))[1].texts} <= {str(n) for n in range(101)}
    assert not plot_accuracy_matrix(stream(21))[1].texts


def test_curves_start_when_learned_and_the_average_is_over_seen_tasks():
    acc = stream(4)
    _, ax = plot_accuracy_curves(acc)
    for task, line in enumerate(ax.lines[:4]):
        assert list(line.get_xdata()) == list(range(task, 4))
        assert list(line.get_ydata()) == pytest.approx((100 * acc[task:, task]).tolist())
    average = ax.lines[4]
    assert average.get_ydata()[2] == pytest.approx(100 * acc[2, :3].mean())
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] == pytest.approx(100, abs=2)
    assert {t.get_text() for t in ax.texts} == {"Task 1", "Task 2", "Task 3", "Task 4", "Average"}


def test_a_stream_that_is_not_over_is_drawn_as_far_as_it_is():
    acc = stream(6)
    acc[3:] = NAN
    _, ax = plot_accuracy_curves(acc)
    assert ax.get_xticks().tolist() == [0, 1, 2]
    assert {t.get_text() for t in ax.texts} == {"Task 1", "Task 2", "Task 3", "Average"}
    plot_accuracy_curves(torch.full((3, 3), NAN))[0].savefig(io.BytesIO())
    plot_accuracy_matrix(torch.full((3, 3), NAN))[0].savefig(io.BytesIO())


def test_names_and_given_average():
    names = ["clipart", "real", "sketch"]
    _, ax = plot_accuracy_matrix(stream(3), names, title="DomainNet")
    assert [t.get_text() for t in ax.get_xticklabels()] == names
    assert ax.get_title() == "DomainNet"
    _, ax = plot_accuracy_curves(stream(3), names, seen_average=[0.1, 0.2, 0.3])
    assert list(ax.lines[3].get_ydata()) == pytest.approx([10, 20, 30])
    assert {t.get_text() for t in ax.texts} == {*names, "Average"}


def test_wrong_input():
    with pytest.raises(ValueError, match="2 names but `acc` has 3 tasks"):
        plot_accuracy_matrix(stream(3), ["a", "b"])
    with pytest.raises(ValueError, match="`seen_average` has shape"):
        plot_accuracy_curves(stream(3), seen_average=[0.1])
    with pytest.raises(ValueError, match="must be square"):
        plot_accuracy_matrix(torch.zeros(2, 3))


def test_draws_into_the_axes_it_is_given():
    figure = Figure()
    ax = figure.add_subplot()
    matrix = AccuracyMatrix(2)
    matrix.update(0, torch.tensor([1, 0]), torch.tensor([1, 1]), 0)
    assert matrix.plot(ax=ax) == (figure, ax)
    assert [t.get_text() for t in ax.texts] == ["50.0"]
    assert plot_metric_curve([NAN, 0.5], "Forgetting", ax=figure.add_subplot())[0] is figure


def test_pyplot_keeps_no_figure():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot_accuracy_matrix(stream(3))
    plot_accuracy_curves(stream(3))
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("file", sorted(Path(lightning_cl.reports.__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_matplotlib_and_rich_are_imported_where_they_are_used(file):
    for node in ast.parse(file.read_text()).body:
        names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
        assert not {"matplotlib", "rich"} & {str(name).split(".")[0] for name in names}


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=11))
def test_spread_labels_keep_apart_in_order_and_inside(positions):
    placed = spread(positions, gap=6.0, low=2.0, high=99.0)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    ordered = [placed[i] for i in order]
    assert all(b - a >= 6.0 - 1e-9 for a, b in pairwise(ordered))
    assert min(placed) >= 2.0 - 1e-9
    assert max(placed) <= 99.0 + 1e-9


def test_labels_with_room_stay_where_they_are():
    assert spread([50.0, 10.0, 90.0], 6.0, 2.0, 99.0) == [50.0, 10.0, 90.0]


@settings(deadline=None)
@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_ink_can_be_read_on_any_colour(background):
    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    paper, text = luminance(background), {"black": 0.0, "white": 1.0}[ink(background)]
    assert (max(paper, text) + 0.05) / (min(paper, text) + 0.05) >= 4.5  # WCAG AA


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_ticks_are_few_and_even(count):
    ticks = spaced(count)
    assert ticks[0] == 0
    assert len(ticks) <= 11
    assert len({b - a for a, b in pairwise(ticks)}) <= 1
