"""RegLoRA: which elements are noted, and what its term is, against the formula written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import RegLoRA
from lightning_cl.nn.masks import largest_elements, mean_at


def shaken(part: Any, seed: int) -> list[Tensor]:
    """Random updates in the slot that learns; ``B A`` of every layer."""
    generator = torch.Generator().manual_seed(seed)
    slot, products = part.slot.value, []
    with torch.no_grad():
        for bank in part.adapters:
            for parameter in (bank.down, bank.up):
                parameter[slot] = torch.randn(parameter[slot].shape, generator=generator)
            products.append(bank.up[slot].T @ bank.down[slot])
    return products


def test_the_term_is_the_mean_over_the_layers_of_the_elements_of_all_earlier_tasks() -> None:
    module = attached(PLAIN, RegLoRA(strength=10.0, keep=0.1, rank=2))
    part, noted = module.continual.parts["reglora"], []
    for index in range(3):
        task = SimpleNamespace(index=index)
        part.start_task(module, task)
        products = shaken(part, index)
        terms = part.losses(None)
        if not index:
            assert terms == {}
        else:
            means = []
            for layer, product in enumerate(products):
                chosen = torch.cat([picked[layer] for picked in noted])  # an element twice counts twice
                means.append(product.flatten()[chosen].abs().mean())
            assert_close(terms["reglora"], 10 * torch.stack(means).mean())
            terms["reglora"].backward()
            for bank in part.adapters:
                moved = bank.up.grad.flatten(1).any(dim=1)
                assert moved.tolist() == [slot == index for slot in range(bank.slots)]
            module.zero_grad()
        noted.append([product.abs().flatten().argsort()[-int(0.1 * product.numel()) :] for product in products])
        part.end_task(module, SimpleNamespace(task=task))
    for times, product in zip(part.times.buffers(), products, strict=True):
        assert int(times.sum()) == 3 * int(0.1 * product.numel())


def test_two_layers_with_means_of_1_and_3_hundredths() -> None:
    """Correction of the released scale: 2500 times the mean over the layers is 50, and not the sum, 100."""
    times = torch.tensor([[1, 0], [2, 1]])
    means = [mean_at(torch.tensor([[0.01, 9.0], [-0.01, 0.01]]) * factor, times) for factor in (1, 3)]
    assert_close(2500 * torch.stack(means).mean(), torch.tensor(50.0))


def test_as_many_elements_as_the_share_says_and_the_largest() -> None:
    mask = largest_elements(torch.tensor([[1.0, -5.0, 2.0], [-3.0, 0.5, 4.0]]), 0.5)
    assert mask.tolist() == [[False, True, False], [True, False, True]]
    assert int(largest_elements(torch.randn(13, 17), 0.02).sum()) == int(0.02 * 13 * 17)


def test_without_strength_there_is_no_term() -> None:
    module = attached(PLAIN, RegLoRA(strength=0.0, rank=2))
    part = module.continual.parts["reglora"]
    part.end_task(module, SimpleNamespace(task=SimpleNamespace(index=0)))
    assert part.losses(None) == {}


@pytest.mark.parametrize(("name", "value"), [("keep", 1.5), ("rank", 0), ("alpha", 0.0), ("strength", -1.0)])
def test_bad_arguments(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is {value}; give"):
        RegLoRA(**{name: value})
