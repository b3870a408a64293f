"""A head that answers for every token, as in decoders: the token that the network chooses is what methods read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from conformance.output_modules import LENGTH, WORDS, HuggingFaceDecoder
from tiny import TinyModule, stream_info, task_of
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_cl.callbacks import DERPlusPlus, FineTuning, LanguageGuidedHead, LwF, PrototypeClassifier
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.training.batch import unpack_for
from lightning_cl.training.step import Step, TokenCall

CLASSES, LENGTHS = 6, torch.tensor([10, 3, 7, 4])
MASK = (torch.arange(LENGTH) < LENGTHS[:, None]).long()
IDS = torch.randint(1, WORDS, (4, LENGTH), generator=torch.Generator().manual_seed(0)) * MASK
BATCH = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([2, 3, 3, 2])}
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def call_of(answers: Tensor) -> TokenCall:
    features = torch.arange(answers.shape[0] * answers.shape[1] * 2.0).view(*answers.shape[:2], 2)
    return TokenCall(features, answers + 1, answers)


def test_the_chosen_token_is_the_one_whose_answer_the_network_gives() -> None:
    answers = torch.randn(3, 5, 4)
    call = call_of(answers)
    found = call.chosen(answers[[0, 1, 2], [4, 0, 2]])
    assert torch.equal(found.features, call.features[[0, 1, 2], [4, 0, 2]])
    assert torch.equal(found.raw_logits, call.raw_logits[[0, 1, 2], [4, 0, 2]])


def test_of_equal_tokens_it_is_one_and_of_none_the_mean() -> None:
    answers = torch.randn(2, 3, 4)
    answers[0, 2] = answers[0, 1]
    call = call_of(answers)
    found = call.chosen(torch.stack([answers[0, 1], answers[1].mean(0)]))
    assert torch.equal(found.features[0], call.features[0, 1])
    assert_close(found.features[1], call.features[1].mean(0))
    assert_close(found.raw_logits[1], call.raw_logits[1].mean(0))


@pytest.fixture
def plain() -> HuggingFaceDecoder:
    torch.manual_seed(0)
    return HuggingFaceDecoder()


def continual(plain: Any, method: Any) -> Any:
    module, info = copy.deepcopy(plain), stream_info(3, CLASSES)
    method.attach_once(module, info)
    module.on_task_start(task_of(info, 1))
    return module


def last_tokens(plain: Any) -> Tensor:
    """``(4, 32)`` what the head is given at the last token of each sentence."""
    hidden = plain.encoder.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    return hidden[torch.arange(4), LENGTHS - 1]


@pytest.mark.parametrize("mask", ["task", "seen", "all"])
def test_the_loss_is_that_of_the_classes_that_compete(plain: Any, mask: Any) -> None:
    module = continual(plain, FineTuning(train_mask=mask))
    columns = {"task": slice(2, 4), "seen": slice(0, 4), "all": slice(0, 6)}[mask]
    loss = module.training_step(BATCH, 0)["loss"]
    logits = plain(**BATCH).logits[:, columns]
    assert_close(loss, nn.functional.cross_entropy(logits, BATCH["labels"] - columns.start))


@pytest.mark.parametrize("method", [DERPlusPlus(4, 2), LwF(), PrototypeClassifier()], ids=lambda m: type(m).__name__)
def test_methods_read_the_last_token(plain: Any, method: Any) -> None:
    module = continual(plain, method).eval()
    inputs, _ = unpack_for(module, BATCH)
    expected = last_tokens(plain.eval())
    assert_close(module.head_input(inputs), expected)
    call = Step(module, BATCH).look()
    assert_close(call.features, expected)
    assert_close(call.raw_logits, plain.encoder.score(expected))


@pytest.mark.parametrize(
    "method", [PrototypeClassifier(), LanguageGuidedHead("random")], ids=lambda m: type(m).__name__
)
def test_what_a_method_makes_of_the_last_token_is_what_is_evaluated(plain: Any, method: Any) -> None:
    module = continual(plain, method).eval()
    if isinstance(method, PrototypeClassifier):
        module.prototypes.update(torch.randn(24, 32), torch.arange(24) % CLASSES)
        expected = module.prototypes(last_tokens(plain.eval()))
    else:
        module.continual.parts["languageguidedhead"].expose(module, range(4))
        expected = module.language_head(last_tokens(plain.eval()))
    capture = HeadCapture(module, CLASSES)
    capture.start()
    with torch.no_grad():
        output = module(**{name: part for name, part in BATCH.items() if name != "labels"})
    assert_close(output.logits[:, :4], expected[:, :4])
    assert torch.equal(capture.take(4, BATCH)[:, :4], output.logits[:, :4])


class Nested(TinyModule):
    """A head within a module of its own, which still answers for every token; the last one counts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 8)
        self.score = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 10))

    def forward(self, x: Tensor) -> Any:
        return {"logits": self.score(self.net(x.flatten(2).mT))[:, -1], "other": x}


def test_the_token_is_looked_for_outside_of_what_answers_for_all() -> None:
    torch.manual_seed(0)
    module, x = Nested(), torch.randn(4, 3, 2, 2)
    LwF().attach_once(module, stream_info())
    assert_close(module.head_input(x), module.score[0](module.net(x.flatten(2).mT)[:, -1]))
    capture = HeadCapture(module, 10)
    capture.start()
    assert torch.equal(module(x)["logits"], capture.take(4, x))
    module.score(module.net(x.flatten(2).mT))
    with pytest.raises(
        RuntimeError, match=r"answered with \(4, 4, 10\), and nothing around it returned logits of shape"
    ):
        capture.take(4, x)


class Averaged(TinyModule):
    """The mean of what the head makes of each patch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.net(x.flatten(2).mT)).mean(1)


def test_a_mean_over_all_tokens_is_one_of_the_features() -> None:
    torch.manual_seed(0)
    module, x = Averaged(), torch.randn(4, 3, 2, 2)
    LwF().attach_once(module, stream_info())
    assert_close(module.head_input(x), module.net(x.flatten(2).mT).mean(1))
    logits, call = Step(module, (x, torch.zeros(4))).learn(x)
    assert_close(call.raw_logits, module.fc(call.features))
    assert_close(logits, call.raw_logits)
