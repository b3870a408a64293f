"""LwF on a language model: whole runs against the formula typed out, over tokens that are no padding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_cl.callbacks import FineTuning, LwF
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, DomainIncremental, PadTokens

from ..by_hand import run, weights

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = 7


class Words(LightningModule):
    """Answers for every token from it and those before; remembers the batches of every task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(WORDS, 5), nn.Linear(5, WORDS, bias=False)
        self.head.weight = self.words.weight  # tied, as in most language models
        self.tasks: list[list[dict[str, Tensor]]] = []
        self.double()

    def on_task_start(self, task: Any) -> None:
        self.tasks.append([])

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.words(ids).cumsum(1)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.tasks[-1].append(batch)
        return next_word(self(batch["input_ids"]), batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch["input_ids"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Spare(Words):
    """Has a layer that no step calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(5, WORDS).double()


def next_word(logits: Tensor, batch: Any) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100)


def corpora() -> ContinualDataModule:
    """Two corpora of twelve sentences of two to five words, and batches of five, so the last ones are short."""
    generator, texts = torch.Generator().manual_seed(1), []
    for at in range(24):
        ids = torch.randint(1, WORDS - 2 * (at < 12), (2 + at % 4,), generator=generator)
        texts.append({"input_ids": ids, "labels": ids})
    domains = {f"{split}_domains": [0] * 12 + [1] * 12 for split in ("train", "test")}
    source = DatasetSource(texts, texts, classes=False, collate_fn=PadTokens(), **domains)
    return ContinualDataModule(source, DomainIncremental(), batch_size=5, epochs_per_task=2)


def by_hand(found: Words, strength: float, temperature: float, reverse: bool, from_start: bool) -> Words:
    net = Words()
    teacher = copy.deepcopy(net) if from_start else None
    for batches in found.tasks:
        for batch in batches:
            ids, mask = batch["input_ids"], batch["attention_mask"]
            loss = next_word(net(ids), batch)
            if teacher is not None:
                total, count = 0.0, 0
                for row, length in enumerate(mask.sum(1).tolist()):  # one sentence after the other, unpadded
                    answers = (m(ids[row : row + 1, :length])[0, :-1] for m in (net, teacher))  # each has a next word
                    ours, theirs = (answer / temperature for answer in answers)
                    p, q = theirs.softmax(1).detach(), ours.softmax(1)
                    of, to = (q, p) if reverse else (p, q)
                    total, count = total + (of * (of / to).log()).sum(), count + length - 1
                loss = loss + strength * temperature**2 * total / count
            net.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.3 * p.grad
        if not from_start:
            teacher = copy.deepcopy(net)
    return net


def trained(method: Any) -> Words:
    return run(method, net=Words(), stream=corpora())


@pytest.mark.parametrize(
    ("temperature", "direction", "reference"), [(1.0, "reverse", "start"), (2.0, "forward", "last")]
)
def test_a_run_equals_the_formula(temperature: float, direction: Any, reference: Any) -> None:
    net = trained(LwF(1.5, temperature, direction=direction, reference=reference))
    assert any((batch["attention_mask"] == 0).any() for batch in net.tasks[1])
    hand = by_hand(net, 1.5, temperature, direction == "reverse", reference == "start")
    torch.testing.assert_close(weights(net), weights(hand), rtol=1e-9, atol=1e-9)
    other = by_hand(net, 1.5, temperature, direction != "reverse", reference == "start")
    assert not torch.allclose(net.head.weight, other.head.weight, rtol=1e-5)


def test_without_strength_it_is_fine_tuning() -> None:
    method = LwF(0.0, reference="start")
    found = weights(trained(method))
    expected = weights(trained(FineTuning(train_mask=method.train_mask, reset_optimizer=method.reset_optimizer)))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_a_stream_without_classes_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="`per_task` compares answers within the classes of each task, but"):
        trained(LwF(per_task=True))
    with pytest.raises(ValueError, match="`spare` was not called in `training_step`; name the layer"):
        run(LwF(head="spare", reference="start"), net=Spare(), stream=corpora())
