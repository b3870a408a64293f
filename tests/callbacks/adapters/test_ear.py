"""EAR-style: a domain that comes again is no new one, samples go to their nearest domain, and nothing else moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import train
from lightning.pytorch import seed_everything
from torch.testing import assert_close

from lightning_cl.callbacks import EAR
from lightning_cl.datamodules import DomainIncremental, SiBlurry
from lightning_cl.nn.hypervectors import DomainMemory

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """A fit on three tasks of two classes, each of which is taken for a new domain."""
    monkeypatch.setattr(DomainMemory, "share_outside", lambda memory, features: 1.0)
    return lambda **options: train(PLAIN, EAR(dimension=512, budget=512, candidates=3), tmp_path, **options)


def test_a_sample_is_answered_by_its_nearest_domain(runs: Any) -> None:
    run = runs()
    part, images = run.module.continual.parts["ear"], torch.rand(12, 1, 16, 16)
    assert part.memory.count.value == 3
    run.module.eval()
    with torch.no_grad():
        features = run.module.head_input(images)
        logits = run.module(images)
        domains = part.memory.similarity(features).argmax(dim=1).tolist()
        for row, domain in enumerate(domains):
            classes = [2 * domain, 2 * domain + 1]  # those that its head learned
            own = part.adaptors.logits(features[row : row + 1], domain)[0]
            assert_close(logits[row][classes], own[classes])
            assert int(logits[row].argmax()) in classes


def test_nothing_moves_but_the_adaptor_of_the_domain(runs: Any) -> None:
    """Under decay: the encoder and the head are as they were made, the first adaptor as at the end of its task."""
    first, run = runs(max_epochs=1), runs()
    then, now = (r.module.continual.parts["ear"].adaptors for r in (first, run))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(then.parameters(), now.parameters(), strict=True))
    assert bool(then.up[0].any())
    assert bool(now.up[2].any())
    seed_everything(0, verbose=False)
    parameters = dict(run.module.named_parameters())
    assert all(torch.equal(p, parameters[n]) for n, p in PLAIN.build("adamw", 0.0).named_parameters())


def test_a_domain_that_comes_again_is_not_added_twice(tmp_path: Any) -> None:
    options = {"kind": "unlabelled", "scenario": DomainIncremental()}  # three parts of the same data, with labels
    again = train(PLAIN, EAR(dimension=2000, budget=512, candidates=2), tmp_path, stream_options=options)
    part = again.module.continual.parts["ear"]
    assert part.memory.count.value == 1
    assert part.slot.value == 0


def test_bad_input(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"EAR looks at a task's samples before"):
        train(PLAIN, EAR(), tmp_path, stream_options={"scenario": SiBlurry(3), "epochs_per_task": 1})
    for arguments in ({"budget": 0}, {"novel": 2.0}, {"probe": 1}, {"candidates": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            EAR(**arguments)
