from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cl.nn import PromptProvider, Prompts


def test_a_provider_must_say_what_it_makes_of_a_query():
    with pytest.raises(NotImplementedError):
        PromptProvider()(None)


def test_by_default_nothing_is_protected_and_nothing_is_given():
    assert list(PromptProvider().protected_rows()) == []
    assert Prompts().prefixes == {}
    assert Prompts().tokens is Prompts().loss is None


def test_the_task_is_saved_and_comes_back_inside_a_larger_module():
    saved, loaded = nn.ModuleDict({"prompts": PromptProvider()}), nn.ModuleDict({"prompts": PromptProvider()})
    assert loaded["prompts"].task == -1
    saved["prompts"].start_task(3)
    loaded.load_state_dict(saved.state_dict())
    assert loaded["prompts"].task == 3
    assert torch.equal(loaded["prompts"].task_counter, torch.tensor(3))
