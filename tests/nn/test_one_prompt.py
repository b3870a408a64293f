from __future__ import annotations

import pytest
import torch

from lightning_cl.nn import OnePromptSet


def test_layers_get_rows_of_their_own_length_shared_by_all_images():
    prompts = OnePromptSet(48, layers=(1, 4), lengths=(2, 3))
    given = prompts(None).prefixes
    assert {layer: tuple(prefix.key.shape) for layer, prefix in given.items()} == {1: (1, 2, 48), 4: (1, 3, 48)}
    for parameter, prefix in zip(prompts.prefixes, given.values(), strict=True):
        assert torch.equal(prefix.key[0], parameter[0])
        assert torch.equal(prefix.value[0], parameter[1])
    assert prompts(None).loss is prompts(None).tokens is None
    assert not prompts.needs_query


def test_rows_are_neither_drawn_anew_nor_protected_at_a_task_start():
    prompts = OnePromptSet(48, layers=(0,), lengths=2)
    before = prompts.prefixes[0].detach().clone()
    for task in range(3):
        prompts.start_task(task)
        assert torch.equal(prompts.prefixes[0], before)
        assert list(prompts.protected_rows()) == []


def test_every_row_learns():
    prompts = OnePromptSet(48)
    sum(t.square().sum() for prefix in prompts(None).prefixes.values() for t in prefix).backward()
    assert all((p.grad != 0).all() for p in prompts.parameters())


def test_the_published_size():
    prompts = OnePromptSet(768)
    assert [tuple(p.shape[:2]) for p in prompts.prefixes] == [(2, 5), (2, 5), (2, 20), (2, 20), (2, 20)]
    assert sum(p.numel() for p in prompts.parameters()) == 107_520
    assert 0 <= min(p.min() for p in prompts.parameters()) < 0.01
    assert 0.99 < max(p.max() for p in prompts.parameters()) < 1


@pytest.mark.parametrize(("layers", "lengths"), [((0, 1), (5,)), ((0,), 0), ((0, 1), (5, 0))])
def test_lengths_must_fit_the_layers(layers, lengths):
    with pytest.raises(
        ValueError, match=r"`lengths` is \[.*\] for \d layers; give one number of rows, or one per layer"
    ):
        OnePromptSet(48, layers, lengths)


def test_its_size_can_be_read():
    assert "layers=[0, 2], lengths=[4, 4]" in repr(OnePromptSet(48, (0, 2), 4))
