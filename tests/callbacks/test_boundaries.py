"""Online streams hide where tasks end: methods that are told say so, and those that must know are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from conformance.methods import METHODS, make
from conformance.modules import PLAIN
from conformance.runs import train
from conformance.streams import make_stream

from lightning_cl.callbacks import EWC, DERPlusPlus
from lightning_cl.callbacks.stream_kind import check_stream_kind
from lightning_cl.datamodules import SiBlurry

#: Methods that go on without boundaries, as their docstrings say where they ask for them.
FALLING_BACK = {"AGEM", "GEM", "L2SP", "PromptSRC", "DKVB", "FeCAM"}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_who_asks_for_boundaries_in_words_asks_for_them_in_code(method: Any) -> None:
    words = " ".join((method.__doc__ or "").split()).lower()
    if "needs task boundaries" in words and method.stream_kind == "labelled" and method.__name__ not in FALLING_BACK:
        assert method.boundaries != "unused"
    if "needs no task boundar" in words or "needs no boundar" in words:
        assert method.boundaries == "unused"


def online(method: Any, folder: Any, case: Any = PLAIN) -> Any:
    stream = {"scenario": SiBlurry(3, seed=4), "epochs_per_task": 1}
    return train(case, method, folder, stream_options=stream, limit_train_batches=1)


def test_a_method_that_is_told_them_warns_and_the_report_says_so(tmp_path: Any) -> None:
    with pytest.warns(UserWarning, match=r"EWC does something where a task begins.*here it is told the 3"):
        run = online(make(EWC), tmp_path)
    notes = run.evaluation.build_report(run.trainer, run.module).notes
    assert any(note.startswith("EWC was told where tasks begin and end") for note in notes)


def test_no_other_method_does(tmp_path: Any, recwarn: Any) -> None:
    run = online(make(DERPlusPlus), tmp_path)
    assert not any("begins or ends" in str(warning.message) for warning in recwarn)
    assert not any("was told" in note for note in run.evaluation.build_report(run.trainer, run.module).notes)


#: What makes a method of this kind do without boundaries is not given.
NEEDING = [method for method in METHODS if method.boundaries == "needed"]


@pytest.mark.parametrize("method", NEEDING, ids=lambda m: m.__name__)
def test_a_module_that_was_refused_is_as_it_was(method: Any, tmp_path: Any) -> None:
    seen: list[Any] = []
    arguments = {name: value for name, value in method.small.items() if name != "every"}

    def build(*given: Any) -> Any:
        seen.append(PLAIN.build(*given))
        return seen[-1]

    with pytest.raises(
        ValueError, match=rf"{method.__name__} .*(nobody tells where that is|shows nothing beforehand);"
    ):
        online(method(**arguments), tmp_path, replace(PLAIN, build=build))
    assert not hasattr(seen[0], "continual")


OF_ONE_KIND = [m for m in METHODS if m.needs_task_identity or m.stream_kind != "labelled"]
ASKED = "answers only for samples whose task it is told|forgets classes on request|adapts without labels"


@pytest.mark.parametrize("method", OF_ONE_KIND, ids=lambda m: m.__name__)
def test_a_method_for_another_kind_of_stream_says_which(method: Any) -> None:
    stream = make_stream()
    stream.setup()
    with pytest.raises(ValueError, match=rf"{method.__name__} ({ASKED}).*, but .*another method"):
        check_stream_kind(make(method), stream)


def test_streams_without_labels_are_for_few() -> None:
    stream = make_stream("unlabelled")
    stream.setup()
    with pytest.raises(
        ValueError, match="EWC learns from labels, but 2 of the 3 tasks of this stream have none; use a"
    ):
        check_stream_kind(make(EWC), stream)
