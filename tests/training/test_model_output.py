"""The class logits are found in whatever a model answers, and what has none is named."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from torchvision.models import GoogLeNetOutputs
from transformers.modeling_outputs import SequenceClassifierOutput

from lightning_cl.training.model_output import logits_in

LOGITS, OTHER = torch.randn(2, 3, 4)
LOSS = torch.tensor(0.5)
Pair = namedtuple("Pair", ["features", "answers"])


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"loss": LOSS, "logits": LOGITS},
        SequenceClassifierOutput(loss=LOSS, logits=LOGITS, hidden_states=(OTHER,)),
        SequenceClassifierOutput(logits=LOGITS),
        SimpleNamespace(logits=LOGITS),
        GoogLeNetOutputs(LOGITS, OTHER, OTHER),
        (LOSS, LOGITS, (OTHER,)),  # of Hugging Face with `return_dict=False`
        [LOGITS, torch.zeros(3, 7)],
        Pair(torch.zeros(3, 7), LOGITS),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found(output: Any) -> None:
    assert logits_in(output, 4) is LOGITS


@pytest.mark.parametrize("kind", [tuple, lambda heads: SequenceClassifierOutput(logits=tuple(heads))])
def test_two_heads_answer_with_their_mean(kind: Any) -> None:
    assert_close(logits_in(kind([LOGITS, OTHER]), 4), (LOGITS + OTHER) / 2)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"scores": LOGITS}, r"returned a dict with the keys \['scores'\], in which no class logits"),
        ((LOSS, torch.zeros(3, 7)), "returned a tuple, in which no class logits were found; .* a tensor of 4 columns"),
        (None, "returned a NoneType"),
    ],
)
def test_an_answer_without_logits_is_named(output: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        logits_in(output, 4)
