"""Which streams have a base session."""

from __future__ import annotations

import pytest

from lightning_cl.callbacks.few_shot.base_session import check_base_session
from lightning_cl.datamodules import ClassIncremental, FewShot

from ..by_hand import CLASSES, make_online, make_stream


def test_a_first_task_of_the_most_classes_is_one() -> None:
    for scenario in (FewShot(2, 2, 3), ClassIncremental(classes_per_task=[4, 2]), ClassIncremental(3)):
        stream = make_stream(scenario=scenario)
        stream.setup()
        check_base_session(stream, "Method")


def test_a_larger_later_task_is_refused() -> None:
    stream = make_stream(scenario=ClassIncremental(classes_per_task=[2, CLASSES - 2]))
    stream.setup()
    with pytest.raises(ValueError, match=r"Method learns its features .* has 2 classes and a later one 4; use"):
        check_base_session(stream, "Method")


def test_an_online_stream_is_refused() -> None:
    stream = make_online()
    stream.setup()
    with pytest.raises(ValueError, match="Method ends its base session when a task ends, but in a stream of one"):
        check_base_session(stream, "Method")
