"""Pictures of what callbacks tell of a run, by the name of the callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lightning_cl.reports.item_plots import plot_items
from lightning_cl.reports.plasticity_plots import plot_plasticity

#: Every file that there can be.
FILES = ("plasticity.png", "item_curves.png")


class FactPicture(NamedTuple):
    """A picture for a report's folder and page.

    Attributes:
        file: Its name in the folder.
        draw: Makes the figure and its axes.
        description: What it shows, in words.
    """

    file: str
    draw: Callable[[], tuple[Any, Any]]
    description: str


def fact_pictures(facts: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> list[FactPicture]:
    """The pictures of a report's facts.

    Args:
        facts: Of a report.
        class_names: Of a report.
    """
    found = list[FactPicture]()
    series, items = facts.get("PlasticityMeter", {}).get("series"), facts.get("ItemCurves")
    if series:
        drawn = partial(plot_plasticity, series)
        found.append(FactPicture(FILES[0], drawn, "How well the network can still learn, over the training batches"))
    if items:
        drawn = partial(plot_items, items, class_names)
        found.append(FactPicture(FILES[1], drawn, "How long samples stay learned, and each class over time"))
    return found
