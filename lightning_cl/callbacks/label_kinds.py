"""Which methods and measurements are for samples with several labels, and which for one."""

from __future__ import annotations

from typing import Any


def check_single_label(stream: Any, who: str) -> None:
    """Refuse samples with several labels to what counts right answers.

    Raises:
        ValueError: If the source has several labels a sample.
    """
    if stream.source.multi_label:
        raise ValueError(
            f"{who} counts right classes, but {type(stream.source).__name__} has several labels a sample; use "
            "MultiLabelEvaluation, which measures the mean average precision."
        )


def check_labels_of_method(stream: Any, who: str, several: bool, classifies: bool = True) -> None:
    """Refuse samples with several labels to a method for one, and the reverse.

    Args:
        stream: The Trainer's.
        who: The method.
        several: Whether it is for several.
        classifies: Whether it has a class head; one that has none looks at no label.

    Raises:
        ValueError: If the source is of the other kind.
    """
    if stream.source.multi_label and classifies and not several:
        raise ValueError(
            f"{who} is for samples with one label, but {type(stream.source).__name__} has several labels a sample; use "
            "`MultiLane(multi_label=True)`, or a source with one."
        )
    if several and not stream.source.multi_label:
        raise ValueError(
            f"{who} is set up for samples with several labels, but {type(stream.source).__name__} has one a sample; "
            "set `multi_label=False`, or use a `MultiLabelSource`."
        )
