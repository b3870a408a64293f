"""SLCA: a slow backbone, statistics that are never refreshed, and a head that is aligned for the evaluation alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import assert_same_bits, train
from torch.testing import assert_close

from lightning_cl.callbacks import SLCA, FineTuning

from .watching import Watch, evaluated_twice, task_images

pytestmark = pytest.mark.filterwarnings("ignore")
METHOD, SMALL = SLCA, SLCA.small


def test_without_slowness_and_alignment_it_is_fine_tuning(tmp_path: Path) -> None:
    plain = train(PLAIN, FineTuning(train_mask="task", reset_optimizer=True), tmp_path).result()
    found = train(PLAIN, SLCA(backbone_lr=1.0, align_epochs=0), tmp_path).result()
    assert_same_bits({k: v for k, v in found.items() if "/continual.parts." not in k}, plain)


def test_the_head_that_is_trained_is_not_the_aligned_one(watch: Watch) -> None:
    """Rows of other tasks do not move by a bit, not at a task's end either."""
    for task, (start, end) in enumerate(zip(watch.starts, watch.ends, strict=True)):
        others = [c for c in range(6) if c // 2 != task]
        assert torch.equal(start["net.head.weight"][others], end["net.head.weight"][others])
        aligned = end["continual.parts.slca.aligned.weights.weight"]
        assert torch.equal(aligned[others], start["net.head.weight"][others]) == (task == 0)


def test_the_aligned_head_answers_until_the_next_task(run: Any, watch: Watch) -> None:
    part, images = run.module.continual.parts["slca"], torch.rand(5, 1, 16, 16)
    weights = dict(part.aligned.weights.items())
    with torch.no_grad():
        features = run.module.eval().head_input(images)
        assert_close(run.module(images), features @ weights["weight"].T + weights["bias"], rtol=0, atol=1e-5)
        part.answers.set(0)
        assert_close(run.module(images), run.module.net(images), rtol=0, atol=0)
        head = run.module.net.head
        assert_close(run.module(images), features @ head.weight.T + head.bias, rtol=0, atol=1e-5)
        part.answers.set(1)
    assert [int(s["continual.parts.slca.answers.saved"]) for s in watch.starts] == [0, 0, 0]
    assert [int(s["continual.parts.slca.answers.saved"]) for s in watch.ends] == [0, 1, 1]


def test_the_alignment_moves_the_head_alone(watch: Watch) -> None:
    """Features at the end of a task and at the start of the next are those of one backbone, bit for bit."""
    for end, start in zip(watch.features["end"], watch.features["start"][1:], strict=False):
        assert torch.equal(end, start)


def test_statistics_are_of_the_backbone_at_the_end_of_the_class_s_task(run: Any, watch: Watch) -> None:
    statistics = run.module.continual.parts["slca"].statistics
    images, labels = task_images(run.stream, 2)
    with torch.no_grad():
        features = run.module.eval().head_input(images).double()
    for label in (4, 5):
        rows = features[labels == label]
        assert_close(statistics.means[label], rows.mean(0), rtol=1e-4, atol=1e-5)
        assert_close(statistics.covariance([label])[0], rows.T.cov(), rtol=1e-3, atol=1e-4)
    for label in (0, 1):  # as they were
        assert torch.equal(statistics.sums[label], watch.ends[0]["continual.parts.slca.statistics.sums"][label])


def test_evaluating_twice_changes_nothing(run: Any) -> None:
    first, second = evaluated_twice(run.module, torch.rand(7, 1, 16, 16))
    assert torch.equal(first, second)


@pytest.mark.parametrize("options", [{"reverse": 0.5, "direct": 0.5, "shrink": "samples"}, {"covariance": "shared"}])
def test_other_ways(options: dict[str, Any], tmp_path: Path) -> None:
    run = train(PLAIN, SLCA(**{**SMALL, **options}), tmp_path, max_epochs=3)
    assert ("reverse" in run.module.continual.last_terms) == ("reverse" in options)
    assert int(run.module.continual.parts["slca"].answers.value) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backbone_lr": 2.0}, r"`backbone_lr` is 2.0; give a number in \[0, 1\]"),
        ({"temperature": 0.0}, "`temperature` is 0.0; give a number above 0"),
        ({"covariance": "none"}, "`covariance` is 'none'; give one of 'class', 'shared', 'diagonal'"),
        ({"shrink": "age"}, "`shrink` is 'age'; give one of 'means', 'samples', 'none'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SLCA(**arguments)
