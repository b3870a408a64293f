"""Label permutations as domains: the same images under new labels, each permutation a renaming of all classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ArraySource, ContinualDataModule, DomainIncremental, PermutedLabels


def source(**options) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    return ArraySource((images, np.arange(8) % 4), (images[:4], np.arange(4)), **options)


def opened(count: int = 5, seed: int = 0) -> PermutedLabels:
    found = PermutedLabels(source(), count, seed)
    found.setup()
    return found


def test_each_domain_has_all_images_under_a_permutation_of_the_labels() -> None:
    made, plain = opened(), source()
    plain.setup()
    assert made.train_domains.tolist() == sorted([*range(5)] * 8)
    assert torch.equal(made.train_labels[:8], plain.train_labels)
    for domain in range(5):
        own = made.permutations[domain]
        assert sorted(own.tolist()) == [0, 1, 2, 3]
        for split, labels in (("train", plain.train_labels), ("test", plain.test_labels)):
            for place in range(len(labels)):
                image, label = made.item(split, domain * len(labels) + place)
                assert torch.equal(image, plain.item(split, place)[0])
                assert label == own[labels[place]]
    assert len({tuple(row) for row in made.permutations.tolist()}) > 2
    assert torch.equal(made.permutations, opened().permutations)
    assert not torch.equal(made.permutations, opened(seed=1).permutations)


def test_it_makes_a_stream_of_domains() -> None:
    stream = ContinualDataModule(PermutedLabels(source(), 3), DomainIncremental())
    assert stream.info.num_tasks == 3
    assert stream.info.classes_per_task == ((0, 1, 2, 3),) * 3


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_domains` is 0"):
        PermutedLabels(source(), 0)
    with pytest.raises(ValueError, match="domains of its own"):
        PermutedLabels(opened(), 2).setup()
