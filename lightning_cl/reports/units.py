"""What the numbers of a matrix are, and how they are shown: accuracies in percent, or the values of a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLORMAP = "viridis"  # even steps for every kind of colour vision, and in grey


def percent(value: float) -> str:
    """A fraction in percent with one decimal; nothing for NaN, no decimal for 100, no sign for zero."""
    if value != value:
        return ""
    text = f"{100 * value:.1f}"
    return {"100.0": "100", "-0.0": "0.0"}.get(text, text)


@dataclass(frozen=True)
class Unit:
    """What is measured.

    Attributes:
        metric: Name of the metric; ``None``: the accuracy, shown in percent.
        higher_is_better: Its direction.
    """

    metric: str | None = None
    higher_is_better: bool = True

    @property
    def label(self) -> str:
        """What stands beside an axis or above a table."""
        if self.metric is None:
            return "Accuracy (%)"
        return f"{self.metric} ({'higher' if self.higher_is_better else 'lower'} is better)"

    @property
    def factor(self) -> float:
        """From values to what is drawn."""
        return 100.0 if self.metric is None else 1.0

    @property
    def suffix(self) -> str:
        """Behind a number that stands alone."""
        return "\u2009%" if self.metric is None else ""

    @property
    def colormap(self) -> str:
        """Bright colours are the better values."""
        return COLORMAP if self.higher_is_better else f"{COLORMAP}_r"

    def text(self, value: float | None) -> str:
        """A value as a table has it; nothing for NaN."""
        if value is None or value != value:
            return ""
        return percent(value) if self.metric is None else f"{value:.3g}"

    def limits(self, values: Sequence[float]) -> tuple[float, float]:
        """Lowest and highest value that a picture of these shows, as drawn."""
        known = [self.factor * value for value in values if value == value]
        if self.metric is None or not known:
            return 0.0, self.factor
        low, high = min(known), max(known)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def colour(self, value: float, limits: tuple[float, float]) -> Any:
        """Colour of a value between limits, both as drawn."""
        from matplotlib import colormaps

        low, high = limits
        return colormaps[self.colormap](min(max((value - low) / (high - low), 0.0), 1.0))


ACCURACY = Unit()
