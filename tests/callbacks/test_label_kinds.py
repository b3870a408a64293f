"""Which methods are for samples with several labels: those that say so, and those that look at no label."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_cl.callbacks.label_kinds import check_labels_of_method


@pytest.mark.parametrize(
    ("source", "method", "classifies", "refused"),
    [
        (False, False, True, None),
        (True, True, True, None),
        (True, False, False, None),
        (True, False, True, "DuET is for samples with one label, but SimpleNamespace has several"),
        (False, True, False, "DuET is set up for samples with several labels, but SimpleNamespace has one"),
    ],
)
def test_kinds(source: bool, method: bool, classifies: bool, refused: str | None) -> None:
    stream = SimpleNamespace(source=SimpleNamespace(multi_label=source))
    if refused is None:
        check_labels_of_method(stream, "DuET", method, classifies)
    else:
        with pytest.raises(ValueError, match=refused):
            check_labels_of_method(stream, "DuET", method, classifies)
