"""Finds the layer that answers for every token, the tokens that count, and repeats a call with other weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_cl.training.teacher import weights_and_statistics
from lightning_cl.training.token_logits import TokenCalls, counted_tokens, find_token_head

SMALL: dict[str, Any] = {"vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 6}
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


class Wrapped(nn.Module):
    """A model of transformers, whose output layer has the weights of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.net = GPT2LMHeadModel(GPT2Config(**SMALL))

    def forward(self, ids: Tensor, **named: Tensor) -> Any:
        return self.net(input_ids=ids, **named).logits.mean()


class Plain(nn.Module):
    """Words, places, and a layer as wide as there are places."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.body, self.heads = nn.Linear(8, 6), nn.ModuleList(nn.Linear(6, 11) for _ in range(heads))


def test_the_layer_that_answers_for_every_token() -> None:
    assert find_token_head(Wrapped()) == "net.lm_head"
    assert find_token_head(Plain()) == "heads.0"
    assert find_token_head(Plain(2), "heads.1") == "heads.1"


def test_it_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"heads.0, heads.1 could make the logits of every token of a lang"):
        find_token_head(Plain(2))
    with pytest.raises(ValueError, match="no layer of this Linear was found"):
        find_token_head(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"`head='heads.7'` is not a part of the module"):
        find_token_head(Plain(), "heads.7")


def test_which_tokens_count() -> None:
    shape, labels = torch.Size([2, 4]), torch.tensor([[-100, 2, 3, 4], [5, -100, -100, -100]])
    batch = {"input_ids": IDS + 1, "attention_mask": MASK, "labels": labels}
    assert torch.equal(counted_tokens(batch, shape), labels >= 0)
    unshifted = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]]) == 1  # the answers to 2, 3 and 4 stand one before them
    for same in ({"input_ids": IDS, "labels": labels}, (IDS, labels)):
        assert torch.equal(counted_tokens(same, shape), unshifted)
    of_class = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 1])}
    assert torch.equal(counted_tokens(of_class, shape), MASK == 1)
    assert torch.equal(counted_tokens(of_class, torch.Size([2, 3])), MASK[:, :3] == 1)  # the last is only a target
    assert counted_tokens({"input_ids": IDS}, shape) is None
    assert torch.equal(counted_tokens((IDS + 1, labels), shape), labels >= 0)
    with pytest.raises(ValueError, match=r"tokens of the shape \(2, 5\), but the batch's `attention_mask` is \(2, 4\)"):
        counted_tokens(of_class, torch.Size([2, 5]))


def test_a_head_that_the_step_calls_by_itself_cannot_be_repeated() -> None:
    module = Plain()
    calls = TokenCalls(module, "heads.0")
    calls.start()
    module.heads[0](torch.zeros(1, 2, 6))
    with pytest.raises(ValueError, match=r"`heads.0` was called in `training_step` by itself, so its call cannot be"):
        calls.again(module, {})


@pytest.mark.parametrize("within", [False, True], ids=["through the module", "through its part"])
def test_a_call_is_repeated_as_it_was_with_other_weights(within: bool) -> None:
    torch.manual_seed(0)
    module = Wrapped()
    calls = TokenCalls(module, "net.lm_head")
    before = {name: value.clone() for name, value in weights_and_statistics(module).items()}
    module.eval()
    expected = module.net(input_ids=IDS, attention_mask=MASK).logits
    module.train()
    with torch.no_grad():
        module.net.transformer.wte.weight.mul_(2.0)
    calls.start()
    call = module.net if within else module
    call(IDS, attention_mask=MASK)
    assert calls.logits is not None
    assert not torch.allclose(calls.logits, expected)
    found = calls.again(module, before)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert module.training
    calls.stop()
    module(IDS, attention_mask=MASK)
    assert calls.logits is None
