"""Which classes are taken for which: accuracy of each class, the matrix, and the most confused pairs, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_cl.reports import drawing as draw
from lightning_cl.reports.files import to_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Names of so many classes have room on an axis.
MOST_NAMES = 40
_INCHES = 3.5


def names_of(count: int, class_names: Sequence[str]) -> list[str]:
    """One name for each of ``count`` classes; their numbers where there are not as many names."""
    return list(class_names) if len(class_names) == count else [str(c) for c in range(count)]


def seen_rows(confusion: Tensor) -> list[int]:
    """Classes that were evaluated or answered."""
    return [c for c in range(len(confusion)) if int(confusion[c].sum()) or int(confusion[:, c].sum())]


def most_confused(confusion: Tensor, count: int = 5) -> list[tuple[int, int, int, int]]:
    """Pairs of classes that were confused most often: the true class, the answer, how often, and of how many.

    Args:
        confusion: ``(C, C)`` counts, a row for each true class, a column for each answer.
        count: At most so many pairs.
    """
    wrong = confusion.clone().fill_diagonal_(0)
    values, places = wrong.flatten().sort(descending=True, stable=True)
    size, totals = len(confusion), confusion.sum(1).tolist()
    pairs = zip(values[:count].tolist(), places[:count].tolist(), strict=True)
    return [(place // size, place % size, int(n), int(totals[place // size])) for n, place in pairs if n]


def confused_lines(confusion: Tensor, class_names: Sequence[str], count: int = 3) -> list[str]:
    """The most confused pairs in words."""
    names = names_of(len(confusion), class_names)
    return [
        f"{names[true]} taken for {names[answer]}: {n} of {total}"
        for true, answer, n, total in most_confused(confusion, count)
    ]


def confusion_csv(confusion: Tensor, class_names: Sequence[str]) -> str:
    """A header, then a line for each true class with the number of each answer."""
    names, rows = names_of(len(confusion), class_names), seen_rows(confusion)
    lines = ([names[row], *(int(confusion[row, column]) for column in rows)] for row in rows)
    return to_csv([["class", *(names[column] for column in rows)], *lines])


def class_accuracy_csv(confusion: Tensor, class_names: Sequence[str]) -> str:
    """Class, right answers, evaluated samples, and accuracy; empty where none was evaluated."""
    names, lines = names_of(len(confusion), class_names), []
    for row in seen_rows(confusion):
        right, total = int(confusion[row, row]), int(confusion[row].sum())
        lines.append([names[row], right, total, right / total if total else None])
    return to_csv([["class", "right", "samples", "accuracy"], *lines])


def plot_confusion(
    confusion: Tensor, class_names: Sequence[str] = (), *, title: str | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Heat map of the share of each true class's samples that got each answer, in percent.

    Args:
        confusion: ``(C, C)`` counts, a row for each true class.
        class_names: One for each class; the numbers without.
        title: Text above the figure.
        ax: Axes to draw into; a new figure by default.
    """
    names, rows = names_of(len(confusion), class_names), seen_rows(confusion)
    chosen = confusion[rows][:, rows].double()
    percent = 100 * chosen / chosen.sum(1, keepdim=True)
    inches = _INCHES if len(rows) <= 12 else 6.5
    figure, ax = draw.new_axes(ax, (inches, inches * 0.9))
    image = ax.imshow(percent.numpy(), cmap="Blues", vmin=0, vmax=100, interpolation="nearest", aspect="equal")
    draw.frame(ax, title, "Answer", "Class")
    if 0 < len(rows) <= MOST_NAMES:
        size = draw.SMALL if len(rows) <= 20 else 4.5
        ax.set_xticks(range(len(rows)), [names[row] for row in rows], fontsize=size, rotation=90)
        ax.set_yticks(range(len(rows)), [names[row] for row in rows], fontsize=size)
    draw.colour_bar(figure, ax, image, [0, 25, 50, 75, 100], "Samples of the class (%)")
    return figure, ax
