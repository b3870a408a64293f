"""A loss made inside the model sees masked logits; methods and evaluation read them where the model has them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conformance.output_modules import LENGTH, WORDS, HuggingFaceImages, HuggingFaceTexts, Measured
from tiny import stream_info, task_of
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import DERPlusPlus, FineTuning
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.training.batch import unpack_for
from lightning_cl.training.step import Step

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")
CLASSES, LABELS = 6, torch.tensor([2, 3, 3, 2])
#: Classes that compete in task 1 of three.
COLUMNS = {"task": [2, 3], "seen": [0, 1, 2, 3], "all": list(range(CLASSES))}


def batch_for(module: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, HuggingFaceImages):
        return {"pixel_values": torch.rand(4, 1, 16, 16, generator=generator), "labels": LABELS}
    mask = (torch.arange(LENGTH) < torch.tensor([[10], [4], [7], [10]])).long()
    ids = torch.randint(1, WORDS, (4, LENGTH), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": LABELS}


@pytest.fixture(params=[HuggingFaceImages, HuggingFaceTexts])
def plain(request: Any) -> Measured:
    torch.manual_seed(0)
    return request.param()


def continual(plain: Measured, method: Any) -> Any:
    module, info = copy.deepcopy(plain), stream_info(3, CLASSES)
    method.attach_once(module, info)
    module.on_task_start(task_of(info, 1))
    return module


def raw_logits(plain: Measured, batch: dict[str, Tensor]) -> Tensor:
    return plain(**batch).logits


@pytest.mark.parametrize("mask", COLUMNS)
def test_the_models_own_loss_is_that_of_the_classes_that_compete(plain: Measured, mask: Any) -> None:
    module, batch, columns = continual(plain, FineTuning(train_mask=mask)), batch_for(plain), COLUMNS[mask]
    output = module.training_step(batch, 0)
    loss = output["loss"] if isinstance(output, dict) else output
    logits = raw_logits(plain, batch)[:, columns]
    expected = -logits.log_softmax(1)[range(4), LABELS - columns[0]].mean()
    assert_close(loss, expected)
    loss.backward()
    moved = module.continual_head.weight.grad.flatten(1).any(1).nonzero().flatten().tolist()
    assert moved == columns


def test_losses_of_other_kinds_inside_the_model(plain: Measured) -> None:
    """Labels of floating point make it binary cross-entropy, over all columns."""
    module, batch = continual(plain, FineTuning(train_mask="task")), batch_for(plain)
    truth = F.one_hot(LABELS, CLASSES).float()
    loss = module(**{**batch, "labels": truth}).loss
    z, y = raw_logits(plain, batch)[:, 2:4], truth[:, 2:4]
    assert_close(loss, ((1 + z.exp()).log() - y * z).sum() / truth.numel())


def test_an_evaluation_reads_the_logits_of_the_classes_seen(plain: Measured) -> None:
    module, batch = continual(plain, FineTuning(train_mask="task")).eval(), batch_for(plain)
    capture = HeadCapture(module, CLASSES)
    capture.start()
    with torch.no_grad():
        output = module(**batch)
    logits = capture.take(4, batch)
    assert_close(logits[:, :4], raw_logits(plain.eval(), batch)[:, :4])
    assert bool((logits[:, 4:] == -torch.inf).all())
    assert torch.equal(output.logits[:, :4], logits[:, :4])


def test_another_pass_reads_the_logits(plain: Measured) -> None:
    module, batch = continual(plain, DERPlusPlus(4, 2)), batch_for(plain)
    inputs, _ = unpack_for(module, batch)
    logits, call = Step(module, batch).learn(inputs)
    assert_close(call.raw_logits, raw_logits(plain, batch))
    assert_close(logits[:, :4], call.raw_logits[:, :4])
    logits.sum().backward()
    assert module.continual_head.weight.grad is not None
