"""Chosen training samples: those of the function, domain by domain; all else is the source's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ArraySource, ContinualDataModule, DomainIncremental, SelectedSamples
from lightning_cl.nn import select_samples

COUNT = 40
FEATURES = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(0))
SCORES = {"loss": torch.linspace(0, 1, COUNT), "constant": torch.ones(COUNT)}


def source(domains: bool = False) -> ArraySource:
    """Images that are their own number; the domains have 10 and 30 of them."""
    images = np.arange(COUNT, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    labels = np.arange(COUNT) % 2
    more = {name: (np.arange(COUNT) >= 10).astype(int) for name in ("train_domains", "test_domains")} if domains else {}
    return ArraySource((images, labels), (images, labels), **more)


def opened(budget: int = 12, domains: bool = False, **options: Any) -> SelectedSamples:
    made = SelectedSamples(source(domains), FEATURES, SCORES, budget, skills=2, **options)
    made.setup()
    return made


def test_the_functions_choice_and_the_sources_samples() -> None:
    found = opened()
    assert torch.equal(found.index, select_samples(FEATURES, SCORES, 12, 2))
    for place, position in enumerate(found.index.tolist()):
        image, label = found.item("train", place)
        assert int(torch.as_tensor(np.asarray(image)).flatten()[0]) == position
        assert label == int(found.train_labels[place]) == position % 2
    assert len(found.test_labels) == COUNT
    assert found.item("test", 33)[1] == 1


def test_domains_share_the_budget() -> None:
    found = opened(26, domains=True)
    assert found.train_domains is not None
    assert found.train_domains.bincount().tolist() == [10, 16]  # what the small one lacks is the other's
    rest = select_samples(FEATURES[10:], {name: values[10:] for name, values in SCORES.items()}, 16, 2) + 10
    assert torch.equal(found.index, torch.cat([torch.arange(10), rest]))
    stream = ContinualDataModule(found, DomainIncremental(), batch_size=4)
    stream.setup()
    assert [len(index) for index in stream.layout.train_index] == [10, 16]
    assert stream.info.fingerprint != other_fingerprint()


def other_fingerprint() -> str | None:
    other = ContinualDataModule(opened(27, domains=True), DomainIncremental(), batch_size=4)
    other.setup()
    return other.info.fingerprint


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="there are 39 features, but 40 training samples"):
        SelectedSamples(source(), FEATURES[1:], SCORES, 5).setup()
    with pytest.raises(ValueError, match=r"the budget of 1 leaves the class '[01]' without a training sample"):
        opened(1)
    with pytest.raises(ValueError, match="the budget is 41"):
        opened(41)
