"""MOS: adapters that are merged, a head that is aligned, and answers of the adapter that a sample settles on."""

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

from lightning_cl.callbacks import MOS

from .watching import Watch, evaluated_twice, slots, task_images

pytestmark = pytest.mark.filterwarnings("ignore")
METHOD, SMALL = MOS, MOS.small


def test_an_adapter_starts_where_the_last_one_ended_and_others_stay(watch: Watch) -> None:
    for task in range(1, 3):
        before, start, end = (slots(s, "mos") for s in (watch.ends[task - 1], watch.starts[task], watch.ends[task]))
        others = [s for s in range(3) if s != task]
        for name, value in start.items():
            assert torch.equal(value[task], before[name][task - 1])
            assert torch.equal(value[others], before[name][others])
            assert torch.equal(value[others], end[name][others])
            assert not torch.equal(value[task], end[name][task])


def merged(module: Any, merge: float, slot: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    part = module.continual.parts["mos"]
    part.slot.set(slot)
    with torch.no_grad():
        for parameter in part.adapters.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    before = {n: p.detach().clone() for n, p in part.adapters.named_parameters()}
    part.after_step(module, None)
    return before, {n: p.detach() for n, p in part.adapters.named_parameters()}


@pytest.mark.parametrize("merge", [0.1, 1.0, 0.0])
def test_a_step_is_merged_once(merge: float) -> None:
    """``(1 - m) A + m mean(A_0 .. A_{t-1})``, in all four tensors; the others are only read."""
    before, after = merged(attached(PLAIN, MOS(**{**SMALL, "merge": merge})), merge, 2)
    for name, old in before.items():
        assert_close(after[name][2], (1 - merge) * old[2] + merge * old[:2].mean(0))
        assert torch.equal(after[name][:2], old[:2])
    first, same = merged(attached(PLAIN, MOS(**SMALL)), 0.1, 0)
    assert all(torch.equal(first[name], value) for name, value in same.items())


def test_evaluating_leaves_no_trace(run: Any) -> None:
    first, second = evaluated_twice(run.module, torch.rand(7, 1, 16, 16))
    assert torch.equal(first, second)


def test_answers_against_loops(run: Any) -> None:
    module, part = run.module.eval(), run.module.continual.parts["mos"]
    images, head = torch.rand(20, 1, 16, 16), dict(part.aligned.weights.items())
    features = []
    with torch.no_grad():
        for k in range(3):
            with part.adapters.selected(k):
                features.append(module.head_input(images))
        found = module(images)
        rows = []
        for t in range(3):
            data, labels = task_images(run.stream, t)
            with part.adapters.selected(0):
                f = module.head_input(data)
            rows += [f[labels == c].mean(0) for c in (2 * t, 2 * t + 1)]
        for b in range(20):
            first = torch.stack([F.cosine_similarity(features[0][b], mean, dim=0) for mean in rows])
            k = int(first.argmax()) // 2
            for _ in range(4):
                z = head["weight"] @ features[k][b] + head["bias"]
                if int(z.argmax()) // 2 == k:
                    break
                k = int(z.argmax()) // 2
            expected = (z.softmax(0) + (3 * first).softmax(0)) / 2
            assert_close(found[b].exp(), expected, rtol=0, atol=1e-4)


def test_the_head_makes_a_part_of_a_step() -> None:
    module = attached(PLAIN, MOS(**{**SMALL, "head_lr": 0.25}))
    part, optimizer = module.continual.parts["mos"], torch.optim.SGD(module.parameters(), lr=1.0)
    before = module.net.head.weight.detach().clone()
    for p in module.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    part.edit_gradients(module, optimizer)
    optimizer.step()
    part.after_step(module, optimizer)
    assert_close(before - module.net.head.weight, torch.full_like(before, 0.25))


def test_without_strength_there_is_no_term(tmp_path: Path) -> None:
    run = train(PLAIN, MOS(**{**SMALL, "strength": 0.0}), tmp_path, max_epochs=1)
    assert not run.module.continual.last_terms


def test_old_rows_of_the_aligned_head_go_on(monkeypatch: Any, tmp_path: Path) -> None:
    from lightning_cl.nn.heads import aligned

    given = []

    def look(head: Any, *_: Any, **__: Any) -> None:
        given.append(head.weight.detach().clone())
        with torch.no_grad():
            head.weight += 1.0

    monkeypatch.setattr(aligned, "align_head", look)
    run = train(PLAIN, MOS(**SMALL), tmp_path)
    own = run.module.net.head.weight
    assert len(given) == 2
    assert torch.equal(given[0][:2], own[:2])  # of the head itself, whose old rows stay
    assert torch.equal(given[1][:4], given[0][:4] + 1.0)
    assert torch.equal(given[1][4:], own[4:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"merge": 1.5}, r"`merge` is 1.5; give a number in \[0, 1\]"),
        ({"samples": 0}, "`samples` is 0; give at least 1"),
        ({"covariance": "none"}, "`covariance` is 'none'; give one of 'class', 'shared', 'diagonal'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MOS(**arguments)
