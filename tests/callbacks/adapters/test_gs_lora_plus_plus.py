"""GS-LoRA++: the two terms of the prototypes, and what is averaged when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached, train
from torch.testing import assert_close

from lightning_cl.callbacks import GSLoRA, GSLoRAPlusPlus
from lightning_cl.callbacks.adapters.gs_lora_plus_plus import PrototypeForgetting
from lightning_cl.nn.losses import divergence
from lightning_cl.training import Step
from lightning_cl.training.step import HeadCall

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_divergence_is_the_sum_over_channels() -> None:
    torch.manual_seed(0)
    embeddings, means = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    for row, found in enumerate(divergence(embeddings, means).tolist()):
        p, q = means[row].exp() / means[row].exp().sum(), embeddings[row].exp() / embeddings[row].exp().sum()
        assert found == pytest.approx(sum(float(a) * float((a / b).log()) for a, b in zip(p, q, strict=True)))
    assert_close(divergence(means, means), torch.zeros(3).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("bound", [50.0, 1e-3])
def test_the_terms_are_those_of_the_formula(bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    method = GSLoRAPlusPlus(rank=2, leave=0.3, stay=0.7, prototype_bound=bound)
    module = attached(PLAIN, method)
    monkeypatch.setattr(type(module), "trainer", SimpleNamespace(world_size=1))
    (part,) = (p for p in module.continual.parts.values() if isinstance(p, PrototypeForgetting))
    part.asked, targets = torch.tensor([0, 2]), torch.tensor([0, 1, 2, 3, 1])
    width = module.continual_head.in_features
    samples, classes = torch.randn(40, width), torch.arange(40) % 4
    part.means.update(samples, classes)
    features, logits = torch.randn(5, width, requires_grad=True), torch.randn(5, 6)
    terms = part.losses(Step(module, (None, targets), [HeadCall(features, logits)]))
    means = torch.stack([samples[classes == c].mean(0) for c in targets.tolist()])
    each = divergence(features, means)
    assert_close(terms["gs_lora_stay"], 0.7 * each[[1, 3, 4]].mean())
    left = each[[0, 2]].mean()
    assert float(terms["gs_lora_leave"]) == pytest.approx(0.3 * max(bound - float(left), 0.0), abs=1e-5)
    (gradient,) = torch.autograd.grad(terms["gs_lora_leave"], features, retain_graph=True)
    (expected,) = torch.autograd.grad(-0.3 * left, features)
    assert_close(gradient, expected * (float(left) < bound))
    assert {"gs_lora_retain", "gs_lora_forget", "gs_lora_blocks"} < terms.keys()
    part.asked = part.asked[:0]
    assert not part.losses(Step(module, (None, targets), [HeadCall(features, logits)]))


def test_updates_are_averaged_at_the_end_of_every_epoch_from_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    module = attached(PLAIN, GSLoRAPlusPlus(rank=2, average_from=1, decay=0.75))
    (part,) = (p for p in module.continual.parts.values() if isinstance(p, PrototypeForgetting))
    place = SimpleNamespace(batch_idx=0)
    task = SimpleNamespace(first_epoch=10)
    trainer = SimpleNamespace(
        fit_loop=place, num_training_batches=2, current_epoch=0, datamodule=SimpleNamespace(task=task)
    )
    monkeypatch.setattr(type(module), "trainer", trainer)
    part.asked = torch.tensor([1])
    update = next(part.adapters.parameters())
    for epoch, value in enumerate((8.0, 4.0, 0.0, 16.0)):
        trainer.current_epoch = 10 + epoch
        for place.batch_idx in (0, 1):
            with torch.no_grad():
                update.fill_(value if place.batch_idx else -99.0)
            part.after_step(module, None)
    part.end_task(module, None)
    # 4, then 0.75 * 4 + 0.25 * 0, then 0.75 * 3 + 0.25 * 16
    assert_close(update.detach(), torch.full_like(update, 6.25))


def test_without_its_terms_and_average_it_is_gs_lora(tmp_path: Any) -> None:
    plain = train(PLAIN, GSLoRA(rank=2), tmp_path, max_epochs=2)
    found = train(PLAIN, GSLoRAPlusPlus(rank=2, leave=0.0, average_from=None), tmp_path, max_epochs=2)
    names = [name for name, _ in PLAIN.build("adamw", 0.0).named_parameters()]
    before, now = (dict(run.module.named_parameters()) for run in (plain, found))
    assert all(torch.equal(before[name], now[name]) for name in names)


def test_bad_arguments() -> None:
    for name, value in (
        ("leave", -1.0),
        ("stay", -1.0),
        ("prototype_bound", -1.0),
        ("decay", 2.0),
        ("average_from", -1),
    ):
        with pytest.raises(ValueError, match=f"`{name}` is {value}"):
            GSLoRAPlusPlus(**{name: value})
