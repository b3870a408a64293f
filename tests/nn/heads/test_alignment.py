"""A head that forgot its old classes learns them again from their Gaussians alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.nn import ClassStatistics, align_head
from lightning_cl.nn.heads import fit_bias

OPTIONS = {"epochs": 3, "per_class": 32, "lr": 0.1}


def gaussians(classes=(0, 1, 2)):
    statistics = ClassStatistics(4, 6, "class")
    generator = torch.Generator().manual_seed(0)
    for label in range(3):
        statistics.update(
            torch.randn(50, 6, generator=generator) + 3 * F.one_hot(torch.tensor(label), 6), torch.full((50,), label)
        )
    return statistics.gaussians(classes)


def head(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(6, 4)


def test_a_skewed_head_answers_with_all_classes_again():
    known, skewed = gaussians(), head()
    with torch.no_grad():
        skewed.bias.copy_(torch.tensor([0.0, 0.0, 30.0, 0.0]))  # as after a task of class 2 alone
    features, labels = known.sample(100, torch.Generator().manual_seed(5))
    assert (skewed(features).argmax(1) == labels).float().mean() < 0.4
    before = skewed.weight[3].detach().clone()
    align_head(skewed, known, torch.Generator().manual_seed(1), weight_decay=0.0, **{**OPTIONS, "epochs": 30})
    assert (skewed(features)[:, :3].argmax(1) == labels).float().mean() > 0.9
    assert torch.equal(skewed.weight[3], before)  # no Gaussian, no part
    assert all(p.grad is None for p in skewed.parameters())


def test_against_a_loop_typed_from_the_recipe():
    known, aligned, twin = gaussians((2, 0)), head(), head()
    align_head(aligned, known, torch.Generator().manual_seed(1), momentum=0.5, weight_decay=0.01, **OPTIONS)
    generator, velocity = torch.Generator().manual_seed(1), None
    for epoch in range(3):
        rate = 0.1 * (1 + math.cos(math.pi * epoch / 3)) / 2
        features, places = known.sample(32, generator)
        order = torch.randperm(64, generator=generator)
        for step in range(2):
            rows = order[32 * step : 32 * step + 32]
            logits = (features[rows] @ twin.weight.T + twin.bias)[:, [2, 0]]
            loss = -logits.log_softmax(1)[torch.arange(32), places[rows]].mean()
            gradients = torch.autograd.grad(loss, [twin.weight, twin.bias])
            gradients = [g + 0.01 * p for g, p in zip(gradients, twin.parameters(), strict=True)]
            velocity = (
                gradients if velocity is None else [0.5 * v + g for v, g in zip(velocity, gradients, strict=True)]
            )
            with torch.no_grad():
                for p, v in zip(twin.parameters(), velocity, strict=True):
                    p -= rate * v
    assert_close(aligned.weight, twin.weight)
    assert_close(aligned.bias, twin.bias)


def test_hooks_take_no_part_and_the_global_generator_stays():
    masked, plain = head(), head()
    masked.register_forward_hook(lambda *_: pytest.fail("a hook was called"))
    state = torch.get_rng_state()
    for each in (masked, plain):
        with torch.no_grad():  # wherever a task's end runs
            align_head(each, gaussians(), torch.Generator().manual_seed(1), **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(masked.weight, plain.weight)


def test_a_frozen_head_is_refused():
    with pytest.raises(ValueError, match="no parameter of the head needs a gradient"):
        align_head(head().requires_grad_(False), gaussians(), torch.Generator(), **OPTIONS)


def biased(count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of four classes, of which the two new ones are doubled and lifted by 3."""
    torch.manual_seed(0)
    z = torch.randn(count, 4, dtype=torch.float64)
    places = torch.distributions.Categorical(logits=z).sample()
    new = torch.tensor([False, False, True, True])
    return torch.where(new, 2 * z + 3, z), places, new


def test_two_scalars_find_the_optimum() -> None:
    """Against another optimiser on the same cross-entropy; the bias that was put in is taken out."""
    logits, places, new = biased()
    pair = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([pair], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(torch.where(new, pair[0] * logits + pair[1], logits), places)
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    options: Any = {"epochs": 2000, "lr": 0.01, "batch_size": 400}
    found = fit_bias(logits, places, new, generator=torch.Generator(), **options)
    assert found == pytest.approx(pair.tolist(), abs=1e-4)
    assert found == pytest.approx((0.5, -1.5), abs=0.3)


def test_no_epoch_no_correction() -> None:
    options: Any = {"epochs": 0, "lr": 0.01, "batch_size": 32}
    assert fit_bias(*biased(), generator=torch.Generator(), **options) == (1.0, 0.0)
