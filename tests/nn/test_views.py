"""Views of a batch: in range, alike for all of its images, and decided by the generator."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.nn.views import random_view


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
