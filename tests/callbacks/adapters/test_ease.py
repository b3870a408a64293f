"""EASE: an adapter a task, means in all spaces, and answers against cosines typed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.modules import PLAIN
from conformance.runs import attached, train
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import EASE, PrototypeClassifier

from .watching import Watch, evaluated_twice, slots, task_images

pytestmark = pytest.mark.filterwarnings("ignore")
METHOD, SMALL = EASE, EASE.small


@torch.no_grad()
def features_in(module: Any, space: int, images: Tensor) -> Tensor:
    """One adapter's features, in a pass of its own."""
    with module.continual.parts["ease"].adapters.selected(space):
        found: Tensor = module.eval().head_input(images)
    return found


def test_answers_are_weighed_cosines_in_all_spaces(run: Any) -> None:
    data = [task_images(run.stream, t) for t in range(3)]
    means = torch.zeros(3, 6, 32)
    for c in range(6):
        images, labels = data[c // 2]
        for k in range(c // 2 + 1):
            means[k, c] = features_in(run.module, k, images[labels == c]).mean(0)
    for d in range(3):  # d > i: from the classes of tasks d, ..., t
        for c in range(2 * d):
            own, donors = c // 2, range(2 * d, 6)
            alike = torch.stack([F.cosine_similarity(means[own, c], means[own, j], dim=0) for j in donors]).softmax(0)
            means[d, c] = sum(s * means[d, j] for s, j in zip(alike, donors, strict=True))
    images = torch.rand(9, 1, 16, 16)
    f = [features_in(run.module, k, images) for k in range(3)]
    with torch.no_grad():
        found = run.module.eval()(images)
    for c in range(6):
        cosines = [F.cosine_similarity(f[k], means[k, c][None]) for k in range(3)]
        expected = cosines[c // 2] + 0.1 / 2 * sum(cosines[k] for k in range(3) if k != c // 2)
        assert_close(found[:, c], expected, rtol=0, atol=3e-5)


def test_adapters_of_other_tasks_do_not_move_by_a_bit(watch: Watch) -> None:
    """Under AdamW with decay; in the current slot everything learns."""
    for task in range(3):
        start, end = slots(watch.starts[task], "ease"), slots(watch.ends[task], "ease")
        assert len(start) == 4 * 3
        others = [s for s in range(3) if s != task]
        assert all(torch.equal(start[name][others], value[others]) for name, value in end.items())
        assert all(not torch.equal(start[name][task], value[task]) for name, value in end.items())


def test_at_first_it_is_the_plain_trunk_bit_for_bit(watch: Watch) -> None:
    """Up-projection and biases are zero: the head is given what it would be without adapters."""
    module, images = attached(PLAIN, EASE(**SMALL)), torch.rand(5, 1, 16, 16)
    adapters = module.continual.parts["ease"].adapters
    with torch.no_grad():
        first = module.eval().head_input(images)
        with adapters.selected(None):
            assert torch.equal(first, module.head_input(images))


def test_a_stream_of_one_task_without_scale_is_the_classifier_of_class_means(tmp_path: Path) -> None:
    from lightning_cl.datamodules import ClassIncremental

    options = {"scenario": ClassIncremental(num_tasks=1, class_order=range(6)), "epochs_per_task": 1}
    runs = [
        train(PLAIN, method, tmp_path, stream_options=options)
        for method in (EASE(**SMALL, scale=0.0, train_mask="seen"), PrototypeClassifier("cosine", normalize=False))
    ]
    images = torch.rand(9, 1, 16, 16)
    assert_close(*(run.module.eval()(images) for run in runs), rtol=0, atol=1e-5)


def test_evaluating_twice_changes_nothing(run: Any) -> None:
    first, second = evaluated_twice(run.module, torch.rand(7, 1, 16, 16))
    assert torch.equal(first, second)


def test_its_state_is_an_adapter_a_task_and_a_mean_a_class_and_task(run: Any) -> None:
    own = {n: v for n, v in run.module.state_dict().items() if "parts.ease." in n}
    adapter = 3 * (2 * 32 * 4 + 4 + 32)  # blocks, both projections and biases
    sizes = {n: v.numel() for n, v in own.items()}
    assert sum(s for n, s in sizes.items() if ".banks." in n) == 3 * adapter
    assert sum(s for n, s in sizes.items() if ".means." in n) == 3 * 6 * 32 + 3 * 6 + 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"rank": 0}, "`rank` is 0; give at least 1"), ({"others": -1.0}, "`others` is -1.0; give at least 0")],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EASE(**arguments)
