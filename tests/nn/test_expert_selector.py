from __future__ import annotations

import torch

from lightning_cl.nn.expert_selector import fit_selector, select


def test_samples_of_separate_regions_find_their_expert_whatever_the_scale():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0, 5.0], [900.0, 0.0, 5.0], [0.0, 0.004, 5.0]])  # the last feature is constant
    experts = torch.arange(300) % 3
    features = centres[experts] + torch.randn(300, 3, generator=generator) * torch.tensor([50.0, 0.0004, 0.0])
    selector, scaling = fit_selector(features, experts, 3, epochs=30, lr=0.05)
    assert (select(features, selector, scaling) == experts).float().mean() > 0.98
    again, _ = fit_selector(features, experts, 3, epochs=30, lr=0.05)
    assert torch.equal(selector, again)


def test_it_is_the_largest_of_linear_scores_of_scaled_features():
    selector = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    scaling = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    assert select(torch.tensor([[3.0, 2.5], [3.0, 3.5]]), selector, scaling).tolist() == [0, 1]
