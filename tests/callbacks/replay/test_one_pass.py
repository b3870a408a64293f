"""Online, each sample is read once from the stream, and again only while it is in the memory; memories count bytes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lightning_cl.callbacks import (
    AGEM,
    CLIB,
    ERACE,
    ERAML,
    MIR,
    SCR,
    DERPlusPlus,
    ExperienceReplay,
    OnPro,
    ProtoCL,
)

from ..by_hand import CLASSES, EACH, make_online, run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    "kind", [ERACE, ERAML, MIR, SCR, CLIB, OnPro, ProtoCL, ExperienceReplay], ids=lambda k: k.__name__
)
def test_a_sample_comes_again_only_from_the_memory(kind: Any) -> None:
    stream = make_online()
    method, reads = kind(**{**kind.small, "memory_size": 8}), Counter[int]()
    whole = stream.source.item

    def item(split: Any, index: int) -> Any:
        if split == "train":
            buffer = method.memory.buffer
            assert not reads[int(index)] or int(index) in buffer.read(buffer.used).tolist()
            reads[int(index)] += 1
        return whole(split, index)

    stream.source.item = item
    run(method, lr=0.01, stream=stream)
    assert len(reads) == CLASSES * EACH  # all of the stream
    assert max(reads.values()) > 1  # and some again


def test_several_epochs_are_told_of_and_one_is_not(recwarn: pytest.WarningsRecorder) -> None:
    CLIB()._tell_of_epochs(1)
    assert not recwarn
    with pytest.warns(UserWarning, match="CLIB is made for one pass over the stream, but a task has 5 epochs: its"):
        CLIB()._tell_of_epochs(5)


@pytest.mark.parametrize("kind", [DERPlusPlus, AGEM, CLIB, ExperienceReplay], ids=lambda k: k.__name__)
def test_bytes_beside_a_sample_are_those_that_are_kept(kind: Any) -> None:
    """What `--align memory` counts before a run is what the memory holds after it."""
    method = kind(**{**kind.small, "memory_size": 8})
    net = run(method, stream=make_online(), lr=0.01)
    assert method.memory.bytes_beside == 8 * method.bytes_beside(net)
    expected = {"DERPlusPlus": 8 * CLASSES, "AGEM": 8, "CLIB": 17, "ExperienceReplay": 0}[kind.__name__]
    assert method.bytes_beside(net) == expected
    assert method.report_facts().get("stored_bytes_beside", 0) == 8 * expected
