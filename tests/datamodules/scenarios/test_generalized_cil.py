from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_cl.datamodules import GeneralizedCIL
from lightning_cl.datamodules.scenarios.generalized_cil import class_weights, phase_counts

LABELS = torch.arange(5000) % 100
pytestmark = pytest.mark.filterwarnings("ignore:GeneralizedCIL has no task")


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@st.composite
def labelled(draw):
    num_classes = draw(st.integers(1, 10))
    extra = draw(st.lists(st.integers(0, num_classes - 1), max_size=40))
    return torch.tensor(draw(st.permutations([*range(num_classes), *extra]))), num_classes


@given(labelled(), st.integers(1, 6), st.integers(1, 8), st.integers(0, 20), st.integers(0, 10**6),
       st.sampled_from(["uniform", "longtail"]))  # fmt: skip
def test_phases_hold_what_they_may(stream, num_phases, max_classes, more, seed, weights):
    labels, num_classes = stream
    scenario = GeneralizedCIL(num_phases, max_classes, max_classes + more, weights, seed=seed)
    phases = scenario.train_tasks(labels, None, num_classes, 0)
    assert len(phases) == num_phases
    for phase in phases:
        assert 1 <= len(phase) <= max_classes + more
        assert len(phase.unique()) == len(phase)  # no image twice in a phase
        assert len(labels[phase].unique()) <= max_classes


def test_images_come_back_unless_they_may_not():
    again = torch.cat(GeneralizedCIL(30, 20, 200, seed=0).train_tasks(LABELS, None, 100, 0))
    assert len(again.unique()) < len(again)
    once = torch.cat(GeneralizedCIL(20, 20, 200, reuse=False, seed=0).train_tasks(LABELS, None, 100, 0))
    assert len(once.unique()) == len(once)
    with pytest.raises(ValueError, match=r"all 10 images are used up before phase \d+ of 50; use fewer phases"):
        GeneralizedCIL(50, 2, 5, reuse=False).train_tasks(torch.arange(10) % 2, None, 2, 0)


def test_the_three_properties_of_the_paper():
    """Random class counts, classes that overlap, unequal sample counts inside a phase."""
    phases = GeneralizedCIL(seed=1).train_tasks(torch.arange(50_000) % 100, None, 100, 0)
    counts = [torch.bincount(torch.arange(50_000)[phase] % 100, minlength=100) for phase in phases]
    numbers = [int((c > 0).sum()) for c in counts]
    assert len(phases) == 20
    assert len(set(numbers)) > 5
    assert max(numbers) <= 50
    assert sum(bool(((a > 0) & (b > 0)).any()) for a, b in pairwise(counts)) > 10
    assert all(c[c > 0].unique().numel() > 1 for c in counts if (c > 0).sum() > 3)


def test_number_of_classes_is_uniform_and_images_follow_the_weights():
    rng, weights = np.random.RandomState(0), np.array([1.0, 2.0, 3.0, 4.0])
    counts = np.array([phase_counts(np.full(4, 10**6), 4, 104, weights, rng) for _ in range(4000)])
    numbers = np.bincount((counts > 0).sum(1), minlength=5)
    assert numbers[0] == 0
    assert np.abs(numbers[1:] - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)
    everything = counts[(counts > 0).all(1)]  # one image each, the other 100 by weight
    np.testing.assert_allclose(everything.mean(0), 1 + 100 * weights / 10, atol=4 * 5 / np.sqrt(len(everything)))
    assert (counts.sum(1) == 104).all()


def test_class_weights():
    np.testing.assert_allclose(class_weights(3, "longtail", 0.5), [1, 0.5, 0.25])
    np.testing.assert_array_equal(class_weights(3, "uniform"), [1, 1, 1])
    np.testing.assert_array_equal(class_weights(2, [3, 1]), [3, 1])


def test_a_class_that_never_comes_is_named():
    with pytest.warns(UserWarning, match=r"GeneralizedCIL has no task with the classes \[.+\], which were never drawn"):
        GeneralizedCIL(1, 50, 100).train_tasks(LABELS, None, 100, 0)


def test_the_seed_decides():
    first, again = (GeneralizedCIL(20).train_tasks(LABELS, None, 100, 5) for _ in range(2))
    assert same(first, again)
    assert same(first, GeneralizedCIL(20, seed=5).train_tasks(LABELS, None, 100, 6))
    assert not same(first, GeneralizedCIL(20).train_tasks(LABELS, None, 100, 6))
    assert GeneralizedCIL().order == "stream"
    assert GeneralizedCIL(order="shuffled").order == "shuffled"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_phases": 0}, "`num_phases` is 0; give at least 1"),
        ({"max_classes": 0}, "`max_classes` is 0"),
        ({"phase_size": 20}, "`phase_size` is 20, fewer images than `max_classes`=50"),
        ({"weights": "linear"}, "`weights` is 'linear'; expected 'uniform', 'longtail' or one number per class"),
        ({"decay": 0.0}, "`decay` is 0.0; give a number in"),
        ({"order": "random"}, "`order` is 'random'"),
    ],
)
def test_wrong_arguments_fail_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        GeneralizedCIL(**options)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0] * 99 + [0.0], [1.0] * 99 + [float("nan")]])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(ValueError, match=r"but there are 100 classes; give each a positive number"):
        GeneralizedCIL(weights=weights).train_tasks(LABELS, None, 100, 0)
