"""Figures of accuracy over a run show what they are given and fit a column."""

import io

import pytest
import torch
from matplotlib.text import Text

from lightning_cl.metrics import ContinualReport, plot_anytime_comparison, plot_anytime_curve

NAN = float("nan")


def report(accuracy: list[float | None], ends: list[int], stream: str = "s") -> ContinualReport:
    seen = [1000 * (n + 1) for n in range(len(accuracy))]
    curve = {
        "samples_seen": [*seen, ends[-1]],
        "accuracy": [*accuracy, 0.0],
        "exposed_classes": [2] * (len(seen) + 1),
        "periodic": [True] * len(seen) + [False],
    }
    section = {"curve": curve, "task_accuracy": [[a] for a in curve["accuracy"]], "task_ends": ends}
    return ContinualReport(class_il=torch.eye(1), anytime=section, stream_hash=stream)


def laid_out(figure, ax):
    figure.savefig(io.BytesIO())
    renderer = figure.canvas.get_renderer()
    inside = figure.get_tightbbox(renderer)
    assert inside.x0 >= -0.01
    assert inside.x1 <= 3.42
    assert inside.y0 >= -0.01
    texts = [t for t in [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()] if t.get_text()]
    boxes = [Text.get_window_extent(t, renderer) for t in texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


@pytest.mark.parametrize(
    ("points", "tasks", "classes"), [(1, 1, 1), (3, 2, 4), (50, 5, 100), (50, 10, 200), (781, 20, 1000)]
)
def test_a_curve_fits_a_column(points, tasks, classes):
    seen = [64 * (n + 1) for n in range(points)]
    ends = [seen[-1] * (t + 1) // tasks for t in range(tasks)]
    exposed = [1 + n * (classes - 1) // points for n in range(points)]
    figure, ax = plot_anytime_curve(seen, torch.rand(points), exposed_classes=exposed, task_ends=ends)
    assert figure.get_size_inches()[0] == pytest.approx(3.4)
    laid_out(figure, ax)


def test_a_curve_shows_its_values():
    figure, ax = plot_anytime_curve(
        torch.tensor([100, 200, 300]), [0.5, NAN, 0.25], exposed_classes=[2, 3, 6], task_ends=[150, 300], title="MVP"
    )
    line, boundary = ax.lines
    assert list(line.get_xdata()) == [100, 200, 300]
    assert list(line.get_ydata()) == pytest.approx([50, NAN, 25], nan_ok=True)
    assert set(boundary.get_xdata()) == {150}
    assert [t.get_text() for t in ax.texts] == ["1", "2", "task"]
    right = next(a for a in figure.axes if a is not ax)
    assert list(right.lines[0].get_ydata()) == [0, 2, 3, 6]
    assert right.get_yticks().tolist() == [0, 2, 4, 6]
    assert ax.get_title() == "MVP"
    assert len(plot_anytime_curve([1], [0.5])[0].axes) == 1


def test_a_title_is_above_the_numbers_of_the_tasks():
    figure, ax = plot_anytime_curve([100, 200], [0.5, 0.5], task_ends=[100, 130, 200], title="A title over all of them")
    figure.canvas.draw()
    numbers = max(text.get_window_extent().y1 for text in ax.texts)
    assert numbers < ax.title.get_window_extent().y0
    assert ax.title.get_window_extent().y1 <= figure.bbox.y1


def test_a_task_too_short_for_its_number_has_none():
    _, ax = plot_anytime_curve([100, 200], [0.5, 0.5], task_ends=[100, 101, 200])
    assert [t.get_text() for t in ax.texts] == ["1", "3", "task"]
    _, ax = plot_anytime_curve([100, 200], [0.5, 0.5], task_ends=range(1, 201))
    assert not ax.texts


def test_runs_are_compared_by_their_periodic_evaluations(tmp_path):
    runs = {"MVP": report([0.8, None, 0.5], [1500, 3100]), "ER": report([0.3, 0.2], [1500, 3100])}
    runs["ER"].write(tmp_path)
    _, ax = plot_anytime_comparison({"MVP": runs["MVP"], "ER": tmp_path})
    assert list(ax.lines[0].get_ydata()) == pytest.approx([80, NAN, 50], nan_ok=True)
    assert list(ax.lines[1].get_xdata()) == [1000, 2000]
    assert {t.get_text() for t in ax.texts} == {"MVP", "ER", "task", "1", "2"}
    assert set(ax.lines[2].get_xdata()) == {1500}
    _, ax = plot_anytime_comparison({"a": runs["MVP"], "b": report([0.3], [700, 1000], stream="other")})
    assert {t.get_text() for t in ax.texts} == {"a", "b"}  # their tasks do not end together


def test_many_runs_with_long_names_fit_a_column():
    runs = {f"MVP-R, memory {100 * n}": report([0.05 * n] * 5, [2000, 5000]) for n in range(9)}
    laid_out(*plot_anytime_comparison(runs))


def test_no_two_runs_look_alike():
    _, ax = plot_anytime_comparison({str(n): report([0.5], [900, 1000]) for n in range(28)})
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines[:28]}
    assert len(looks) == 28


def test_wrong_input():
    with pytest.raises(ValueError, match="give as many"):
        plot_anytime_curve([1, 2], [0.5])
    with pytest.raises(ValueError, match="`exposed_classes` has 1 entries"):
        plot_anytime_curve([1, 2], [0.5, 0.5], exposed_classes=[1])
    with pytest.raises(ValueError, match="0 runs were given"):
        plot_anytime_comparison({})
    with pytest.raises(ValueError, match="'plain' have no anytime section"):
        plot_anytime_comparison({"plain": ContinualReport(class_il=torch.eye(2))})


def test_draws_into_the_axes_it_is_given():
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert plot_anytime_curve([1, 2], [0.5, 0.6], ax=ax) == (figure, ax)
    assert plot_anytime_comparison({"a": report([0.5], [1000])}, ax=ax) == (figure, ax)
