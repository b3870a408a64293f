"""The instance test: which images become classes, how they are degraded, and who recognises all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_cl.datamodules import ArraySource, ContinualDataModule, Instances, InstanceTest
from lightning_cl.datamodules.sources.instances import chosen_images, degrade
from lightning_cl.metrics.functional import episode_interval

LABELS = torch.arange(3).repeat_interleave(8)


def source(**arguments: object) -> Instances:
    rng = np.random.default_rng(0)
    part = rng.integers(0, 255, (24, 6, 6)).astype(np.uint8), LABELS.numpy()
    return Instances(ArraySource(part, part, augment="none", mean=(0.0,), std=(1.0,)), **arguments)  # type: ignore[arg-type]


def test_images_are_distinct_and_dealt_out_class_by_class() -> None:
    found = chosen_images(LABELS, 3, 4, 2, seed=5)
    assert len(set(found.tolist())) == 8
    assert LABELS[found].view(4, 2).unique(dim=0).shape == (1, 2)
    assert chosen_images(LABELS, 3, 6, 2, seed=5)[:8].tolist() == found.tolist()
    assert chosen_images(LABELS, 3, 4, 2, seed=6).tolist() != found.tolist()


def test_pixels_alone_recognise_every_image_that_is_not_degraded() -> None:
    """In every support set on any process; occluded images are others."""
    stream = ContinualDataModule(source(count=4, ways=2), InstanceTest(sets=2), batch_size=3)
    stream.setup()
    assert stream.info.num_classes == 8
    assert stream.info.classes_per_task == ((0, 1, 2, 3), (4, 5, 6, 7))
    train, test = (
        torch.stack([stream.source.item(split, i)[0].float() for i in range(8)]) for split in ("train", "test")
    )
    nearest = torch.cdist(test.flatten(1), train.flatten(1)).argmin(1)
    assert nearest.tolist() == list(range(8))
    hidden = source(count=4, ways=2, occlusion=0.4, noise=0.1)
    hidden.setup()
    first, again = (hidden.item("test", 3)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, hidden.item("train", 3)[0])
    assert hidden.item("test", 3)[1] == 3


def test_a_square_is_hidden() -> None:
    image = torch.zeros(1, 8, 8)
    found = degrade(image, 0.25, 0.0, torch.Generator().manual_seed(0))
    assert (found == 0.5).sum() == 16
    rows = (found[0] == 0.5).any(1).nonzero().flatten()
    assert len(rows) == 4
    noisy = degrade(image + 0.5, 0.0, 0.1, torch.Generator().manual_seed(0))
    assert noisy.std().item() == pytest.approx(0.1, rel=0.3)


def test_the_interval_over_episodes() -> None:
    mean, half = episode_interval([0.5, 0.7, 0.9])
    assert mean.item() == pytest.approx(0.7)
    assert half.item() == pytest.approx(1.96 * 0.2 / 3**0.5)
    with pytest.raises(ValueError, match="there are 1 episodes"):
        episode_interval([0.5])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="`count` is 0; give at least 1"):
        source(count=0)
    with pytest.raises(ValueError, match=r"`occlusion` is 1\.0 and `noise` is 0.0; give a share below 1"):
        source(occlusion=1.0)
    with pytest.raises(ValueError, match="`ways` is 4, but the source has 3 classes"):
        chosen_images(LABELS, 3, 1, 4, 0)
    with pytest.raises(ValueError, match=r"`count` is 9, but the class . has 8 training images; lower it"):
        chosen_images(LABELS, 3, 9, 1, 0)
    with pytest.raises(ValueError, match="`sets` is 0; give at least 1"):
        InstanceTest(0)
    with pytest.raises(ValueError, match="`sets` is 3, but there are 4 images of each class; give a divisor"):
        InstanceTest(3).for_source(source(count=4))
    with pytest.raises(ValueError, match=r"the instance test needs a source .* is a ArraySource; give `Instances\("):
        InstanceTest(2).for_source(source().source)
