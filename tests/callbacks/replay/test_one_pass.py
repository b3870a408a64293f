"""Online, each sample is read once from the stream, and again only while it is in the memory; memories count bytes."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest
from conformance.methods import METHODS, make
from conformance.modules import PLAIN
from conformance.runs import attached

import lightning_cl.callbacks
from lightning_cl.callbacks import (
    CLIB,
    EWC,
    GACIL,
    SCR,
    SHARP,
    BiC,
    ExperienceReplay,
    FineTuning,
    ICaRL,
    LwF,
    PrototypeClassifier,
    ReLoop2,
    StreamingLDA,
)
from lightning_cl.nn.replay import ReplayBuffer

from ..by_hand import CLASSES, EACH, make_online, run

pytestmark = pytest.mark.filterwarnings("ignore")
SLOTS = 8
#: All with a memory but those that need the end of a task, and refuse an online stream.
ONLINE = [
    kind
    for kind in (getattr(lightning_cl.callbacks, name) for name in sorted(lightning_cl.callbacks.__all__))
    if isinstance(kind, type) and issubclass(kind, ExperienceReplay) and kind not in (BiC, ICaRL, SHARP)
]
#: Bytes that are kept beside each sample and its label: logits, the task, a score, importance, a pseudo-label, the
#: expert.
BESIDE = {"AGEM": 8, "DER": 8 * CLASSES, "DERPlusPlus": 8 * CLASSES, "GEM": 8, "GSS": 8, "CLIB": 17, "PLFMS": 29}
BESIDE["TAME"] = 8


def remembered(method: Any) -> list[int]:
    """Positions of the samples in the memory, if there is one."""
    buffer = method.memory.buffer if isinstance(method, ExperienceReplay) else None
    return [] if buffer is None else buffer.read(buffer.used).tolist()


@cache
def online(kind: Any) -> tuple[Any, Any, Counter[int], list[int]]:
    """After one pass online: module, method, reads of each sample, and what was read again and not remembered."""
    stream, seen, unknown = make_online(), Counter[int](), list[int]()
    method = kind(**{**kind.small, **({"memory_size": SLOTS} if issubclass(kind, ExperienceReplay) else {})})
    whole = stream.source.item

    def item(split: Any, index: int) -> Any:
        if split == "train":
            if seen[int(index)] and int(index) not in remembered(method):
                unknown.append(int(index))
            seen[int(index)] += 1
        return whole(split, index)

    stream.source.item = item
    return run(method, lr=0.01, stream=stream), method, seen, unknown


each_online = pytest.mark.parametrize("kind", ONLINE, ids=lambda kind: kind.__name__)


@each_online
def test_a_sample_comes_again_only_from_the_memory(kind: Any) -> None:
    _, _, reads, unknown = online(kind)
    assert not unknown
    assert len(reads) == CLASSES * EACH  # all of the stream
    assert max(reads.values()) > 1  # and some again


@pytest.mark.parametrize("kind", [GACIL, LwF, PrototypeClassifier, ReLoop2, StreamingLDA], ids=lambda k: k.__name__)
def test_without_a_memory_none_comes_again(kind: Any) -> None:
    _, _, reads, _ = online(kind)
    assert len(reads) == CLASSES * EACH
    assert set(reads.values()) == {1}


@pytest.mark.parametrize(
    "kind", [m for m in METHODS if getattr(m, "needs_every_class", False)], ids=lambda k: k.__name__
)
def test_a_memory_without_room_for_every_class_is_refused(kind: Any) -> None:
    words = rf"{kind.__name__} needs a sample of each of the 6 classes .* `memory_size` is 5; give at least 6"
    with pytest.raises(ValueError, match=words):
        attached(PLAIN, make(kind, memory_size=5))


@each_online
def test_bytes_beside_a_sample_are_those_that_are_kept(kind: Any) -> None:
    """What `--align memory` counts before a run is what the memory holds after it."""
    net, method, _, _ = online(kind)
    assert type(method.memory.buffer) is ReplayBuffer  # the one class that stores samples
    assert method.memory.bytes_beside == SLOTS * method.bytes_beside(net)
    assert method.bytes_beside(net) == BESIDE.get(kind.__name__, 0)
    assert method.report_facts().get("stored_bytes_beside", 0) == SLOTS * method.bytes_beside(net)


def test_several_epochs_are_told_of_and_one_is_not(recwarn: pytest.WarningsRecorder) -> None:
    CLIB()._tell_of_epochs(1)
    assert not recwarn
    with pytest.warns(UserWarning, match="CLIB is made for one pass over the stream, but a task has 5 epochs: its"):
        CLIB()._tell_of_epochs(5)


def test_a_second_pass_over_a_stream_that_shows_samples_once_is_told_of(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.warns(UserWarning, match="a method passes over the samples of a task once more, but this stream shows"):
        run(EWC(), stream=make_online())
    recwarn.clear()
    for method in (SCR(12, 5, width=6), FineTuning()):
        run(method, stream=make_online(), lr=0.01)
    run(EWC())
    assert not [w for w in recwarn if "once more" in str(w.message)]
