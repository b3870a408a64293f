"""Views of a batch: in range, alike for all of its images, and decided by the generator."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.views import contrastive_view, random_view


def view(images, seed, **options):
    return random_view(images, torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_a_batch_of_images(channels):
    images = torch.rand(3, channels, 16, 12)
    found = view(images, 0)
    assert found.shape == images.shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    state = torch.get_rng_state()
    assert torch.equal(view(images, 0), found)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(view(images, 1), found)


def test_all_images_of_a_batch_are_changed_alike():
    images = torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1)
    found = view(images, 3)
    assert_close(found, found[:1].expand(4, -1, -1, -1))
    assert_close(view(images[:2], 3), found[:2])


def test_mirrored_only_if_it_may_be():
    """A ramp rises to the right in every view, unless it is mirrored, which happens in about half of them."""
    ramp = torch.linspace(0.2, 0.8, 16).expand(1, 1, 16, 16)

    def rising(**options):
        means = [view(ramp, seed, **options).mean(dim=(0, 1, 2)) for seed in range(20)]
        return sum(bool(m[-3:].mean() > m[:3].mean()) for m in means)

    assert rising(flip=False) == 20
    assert 4 <= rising() <= 16


PLAIN = {"least_area": 1.0, "flip": False, "jitter": 0.0, "gray": 0.0}


def test_a_contrastive_view_of_the_whole_image_is_the_image():
    images, draws = torch.rand(5, 3, 8, 6, dtype=torch.float64), torch.rand(5, 9)
    assert_close(contrastive_view(images, draws, **PLAIN), images)


def test_each_image_has_its_own_draws():
    images, draws = torch.rand(1, 3, 8, 8).repeat(6, 1, 1, 1), torch.rand(6, 9)
    whole = contrastive_view(images, draws)
    assert_close(torch.cat([contrastive_view(images[:1], draws[i : i + 1]) for i in range(6)]), whole)
    assert len({tuple(view.flatten().tolist()) for view in whole}) == 6


def test_what_a_contrastive_view_changes():
    """A quarter at the top left, mirrored, brighter by 0.4, gray: of a ramp to the right."""
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    draws = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.9, 0.9, 0.5, 0.5, 0.9]])  # area, ratio, left, top, mirrored, ...
    cut = contrastive_view(ramp, draws, least_area=0.25, jitter=0.4, gray=0.2)
    assert_close(cut[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]))
    mirrored = contrastive_view(ramp, draws.index_fill(1, torch.tensor([4]), 0.1), least_area=0.25)
    assert_close(mirrored, cut.flip(-1))
    brighter = draws.clone()
    brighter[0, 5], brighter[0, 7] = 0.1, 1.0
    assert_close(contrastive_view(ramp, brighter, least_area=0.25), cut + 0.4)
    colours = torch.stack([ramp[0, 0], 0 * ramp[0, 0], 0 * ramp[0, 0]])[None]
    gray = contrastive_view(colours, draws.index_fill(1, torch.tensor([8]), 0.1), least_area=0.25)
    assert_close(gray, (0.299 * cut[:, :1]).expand(1, 3, 8, 8))
