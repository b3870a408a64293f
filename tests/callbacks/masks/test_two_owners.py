"""Methods that would take from one that keeps earlier tasks what it keeps are one error."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.methods import METHODS, make

from lightning_cl.callbacks import ACIL, HAT, DERPlusPlus, ExperienceReplay, PackNet
from lightning_cl.callbacks.combination import check_combination

from .task_runs import told_run

pytestmark = pytest.mark.filterwarnings("ignore")


def test_both_are_named():
    with pytest.raises(ValueError, match=r"PackNet and HAT each decide which task a weight belongs to.*use one"):
        told_run(PackNet(), callbacks=[HAT()])


@pytest.mark.parametrize("first", [True, False], ids=["in front", "behind"])
@pytest.mark.parametrize("method", [m for m in METHODS if m.rewrites_weights], ids=lambda m: m.__name__)
def test_weights_of_all_tasks_are_not_changed_beside_those_that_stay(method: Any, first: bool) -> None:
    pair = [make(method), PackNet()][:: 1 if first else -1]
    with pytest.raises(ValueError, match=f"bit for bit, but {method.__name__} changes the weights of all tasks"):
        check_combination(pair[0], pair)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (lambda: ExperienceReplay(6, 2), "ExperienceReplay would train those of earlier tasks"),
        (lambda: DERPlusPlus(6, 2), "DERPlusPlus would train those of earlier tasks"),
        (lambda: ACIL(8), "ACIL makes the logits of all classes itself"),
    ],
)
def test_heads_of_earlier_tasks_stay(method: Any, words: str) -> None:
    pair = [PackNet(), method()]
    with pytest.raises(ValueError, match=f"PackNet keeps a head for each task, but {words}"):
        check_combination(pair[0], pair)
