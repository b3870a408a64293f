"""Streams that ask to forget: what may be read, where a class is evaluated, and requests that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule, Forget, SiBlurry
from lightning_cl.datamodules.task import StreamInfo

LABELS = torch.arange(6).repeat(5)[torch.randperm(30, generator=torch.Generator().manual_seed(0))]


def stream(scenario: Forget, **options: Any) -> ContinualDataModule:
    images = torch.zeros(30, 8, 8, dtype=torch.uint8)
    names = ["ant", "bee", "cat", "dog", "elk", "fox"]
    made = ContinualDataModule(ArraySource((images, LABELS), (images, LABELS), class_names=names), scenario, **options)
    made.setup()
    return made


@given(st.permutations(range(6)), st.integers(1, 3), st.sampled_from([0, 0.1, 0.3, 0.7, 1]), st.integers(0, 99))
def test_a_request_reads_what_it_names_and_the_share_that_is_retained(order, first, share, seed):
    requests = [list(order[:first]), list(order[first : first + 2])]
    made = stream(Forget(requests, retained=share), seed=seed)
    tasks = made.layout.train_index
    assert len(tasks) == 3
    assert sorted(tasks[0].tolist()) == list(range(30))
    count = {0: 0, 0.1: 1, 0.3: 2, 0.7: 4, 1: 5}[share]
    kept = [set[int](), set[int]()]
    for at, request in enumerate(requests):
        gone = {c for earlier in requests[:at] for c in earlier}
        held = LABELS[tasks[1 + at]]
        for label in range(6):
            wanted = 5 if label in request else 0 if label in gone else count
            assert int((held == label).sum()) == wanted
        kept[at] = {i for i in tasks[1 + at].tolist() if int(LABELS[i]) not in gone | set(request)}
        assert made.task_at(1 + at).forgets == tuple(sorted(request))
    assert {i for i in kept[0] if int(LABELS[i]) not in requests[1]} == kept[1]  # nothing else was kept
    assert made.info.forgets_per_task == ((), *(tuple(sorted(r)) for r in requests))
    assert StreamInfo.from_state_dict(made.info.state_dict()) == made.info


def test_a_class_is_evaluated_where_it_is_to_be_forgotten():
    made = stream(Forget([["bee"], [4]], learn=ClassIncremental(3, class_order=range(6))))
    data = made.eval_data("val")
    assert [sorted(set(LABELS[part].tolist())) for part in data.index] == [[0], [2, 3], [5], [1], [4]]
    assert made.num_validated_tasks == 5  # from the first validation on
    assert made.info.forgets_per_task == ((), (), (), (1,), (4,))


def test_a_task_whose_classes_are_all_to_be_forgotten_has_no_samples_of_its_own():
    made = stream(Forget([[2, 3]], learn=ClassIncremental(3, class_order=range(6))))
    assert [len(part) for part in made.eval_data("val").index] == [10, 0, 10, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"requests": []}, "there is no request, so nothing would be forgotten"),
        ({"requests": [[1], []]}, "request 1 names no class"),
        ({"requests": [[1]], "retained": 1.5}, r"`retained` is 1.5; give a share"),
        ({"requests": [[1]], "learn": SiBlurry(3)}, "`learn` is an online stream"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Forget(**arguments)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([[1], [9]], r"request 1 asks to forget the classes \[9\], which were never learned; the stream learns 6 of 6"),
        ([[1, 2], [2]], r"request 1 asks to forget the classes \[2\] a second time"),
        ([[3, 3]], r"request 0 asks to forget the classes \[3\] a second time"),
        ([[0, 1, 2], [3, 4, 5]], "the requests forget all 6 classes"),
        ([["cow"]], "'cow' in `requests` is no name"),
    ],
)
def test_requests_that_make_no_sense(requests, message):
    with pytest.raises(ValueError, match=message):
        stream(Forget(requests))
