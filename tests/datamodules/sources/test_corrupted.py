"""Corrupted copies as domains: all images in each, the same bits every time, and each corruption does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lightning_cl.datamodules import ArraySource, ContinualDataModule, Corrupted, DomainIncremental
from lightning_cl.datamodules.sources.corruptions import SEVERITIES, corrupt


def source(**options) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    return ArraySource((images, np.arange(6) % 3), (images[:3], np.arange(3)), **options)


def opened(*names: str, **options) -> Corrupted:
    found = Corrupted(source(), names, **options)
    found.setup()
    return found


def test_every_domain_has_all_images() -> None:
    made = opened("gaussian_noise", "blur")
    assert made.domain_names == ("clean", "gaussian_noise", "blur")
    assert made.train_labels.tolist() == [0, 1, 2, 0, 1, 2] * 3
    assert made.train_domains.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert made.test_domains.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    plain = source()
    plain.setup()
    assert torch.equal(made.item("train", 4)[0], plain.item("train", 4)[0])
    for domain in (1, 2):
        image, label = made.item("train", 6 * domain + 4)
        assert (image.dtype, label) == (torch.uint8, 1)
        assert not torch.equal(image, plain.item("train", 4)[0])
        assert torch.equal(image, made.item("train", 6 * domain + 4)[0])  # whenever it is read
    assert not torch.equal(made.item("train", 6)[0], opened("gaussian_noise", "blur", seed=1).item("train", 6)[0])
    stream = ContinualDataModule(Corrupted(source(), ["invert"]), DomainIncremental())
    assert stream.info.num_tasks == 2


def some(name: str, image: torch.Tensor, severity: int = 5) -> torch.Tensor:
    return corrupt(image, name, severity, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SEVERITIES)
def test_a_higher_severity_takes_the_image_further_away(name: str) -> None:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    away = [float((some(name, image, severity) - image).abs().mean()) for severity in range(1, 6)]
    assert away == sorted(away) or name == "pixelate"  # which depends on how pixels fall into each other
    assert 0 < away[0] < away[-1]
    assert 0 <= float(some(name, image).min()) <= float(some(name, image).max()) <= 1


def test_known_answers() -> None:
    image = 0.4 + 0.2 * torch.rand(1, 16, 16)
    assert_close(some("invert", image), 1 - image)
    assert_close(some("brightness", image, 1), image + 0.1)
    assert_close(some("contrast", image) - image.mean(), 0.12 * (image - image.mean()))
    flat = torch.full((3, 16, 16), 0.3)
    assert_close(some("blur", flat), flat)
    assert_close(some("pixelate", flat), flat)
    noise = some("gaussian_noise", torch.full((1, 64, 64), 0.5), 1) - 0.5
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    hit = some("impulse_noise", torch.full((1, 64, 64), 0.5)) != 0.5
    assert float(hit.float().mean()) == pytest.approx(0.27, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"corruptions": ["fog"]}, "there is no corruption 'fog'; give some of 'gaussian_noise'"),
        ({"corruptions": []}, r"`corruptions` is \[\]; give a list"),
        ({"corruptions": ["blur"], "severity": 6}, "`severity` is 6; give 1 to 5"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Corrupted(source(), **arguments)


def test_a_source_with_domains_of_its_own() -> None:
    made = Corrupted(source(train_domains=np.zeros(6, int), test_domains=np.zeros(3, int)), ["blur"])
    with pytest.raises(ValueError, match="ArraySource has domains of its own"):
        made.setup()
