"""An evaluation in the middle of training gives the validation's logits and leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from tiny import tiny_vit
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lightning_cl.callbacks import AnytimeEvaluation, DualPrompt, FineTuning, ProtocolGuard, PrototypeClassifier
from lightning_cl.callbacks.evaluation.head_capture import HeadCapture
from lightning_cl.callbacks.evaluation.silent_evaluation import SilentEvaluation
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES = 10


class Module(LightningModule):
    """Draws in its validation, logs, keeps a torchmetric, and has batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm2d(3), tiny_vit().float()
        self.accuracy = MulticlassAccuracy(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))

    def training_step(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(F.dropout(batch[0], 0.1)), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        torch.rand(1), np.random.rand()
        assert not self.training
        assert not torch.is_grad_enabled()
        assert self.trainer.validating
        self.accuracy.update(self(batch[0]), batch[1])
        self.log("val_acc", self.accuracy)
        self.log_dict({"a": 1.0})

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.01)


def make_stream() -> ContinualDataModule:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 2)
    parts = [(rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), labels) for _ in range(2)]
    return ContinualDataModule(ArraySource(*parts), ClassIncremental(num_tasks=5), batch_size=4, epochs_per_task=1)


class Evaluate(Callback):
    """Evaluates the first samples after every step."""

    def __init__(self, stage: str | None, samples: int = 2 * CLASSES) -> None:
        self.stage, self.samples, self.logits = stage, samples, []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        stream = trainer.datamodule
        loader = stream.anytime_dataloader(torch.arange(self.samples))
        with SilentEvaluation(trainer, pl_module, HeadCapture(pl_module, CLASSES)) as evaluation:
            answers = [
                evaluation.logits(batch, i, len(stream.eval_batch(i, "anytime").labels), self.stage)
                for i, batch in enumerate(loader)
            ]
        self.logits.append(torch.cat(answers).cpu())


def run(*callbacks: Callback, module: Any = None) -> tuple[Any, Trainer]:
    seed_everything(0)
    trainer = Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), num_sanity_val_steps=0,
    )  # fmt: skip
    module = module or Module()
    trainer.fit(module, datamodule=make_stream())
    return module, trainer


def method(kind: type) -> Any:
    small = {"general_length": 2, "expert_length": 2, "general_layers": (0,), "expert_layers": (1,)}
    return kind(**small) if kind is DualPrompt else kind()


@pytest.mark.parametrize("kind", [FineTuning, DualPrompt, PrototypeClassifier])
def test_training_goes_on_as_if_nothing_had_been_evaluated(kind):
    plain, trainer = run(method(kind))
    watched, watching = run(method(kind), evaluate := Evaluate("anytime", samples=7))
    assert len(evaluate.logits) == 5
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert trainer.callback_metrics["val_acc"] == watching.callback_metrics["val_acc"]
    assert "log" not in watched.__dict__


@pytest.mark.parametrize("kind", [FineTuning, DualPrompt, PrototypeClassifier])
def test_the_logits_are_those_of_the_module_with_and_without_caches(kind):
    (module, _), (_, _) = run(method(kind), told := Evaluate("anytime")), run(method(kind), untold := Evaluate(None))
    for a, b in zip(told.logits, untold.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    stream = make_stream()
    stream.setup()
    batch = torch.utils.data.default_collate([stream._dataset("test", "eval")[(i, None)] for i in range(2 * CLASSES)])
    module.eval()
    with torch.no_grad():
        expected = copy.deepcopy(module)(batch[0].flatten(0, 1))
    torch.testing.assert_close(told.logits[-1], expected, rtol=0, atol=1e-4)


def by_another_name(self, batch, i):
    return self.check(batch, i)


def any_arguments(self, *args):
    return self.check(*args)


def with_loader_index(self, batch, i, dataloader_idx=0):
    return self.check(batch, i)


def batch_alone(self, batch):
    return self.check(batch, 0)


def by_its_usual_name(self, batch, batch_idx):
    return self.check(batch, batch_idx)


@pytest.mark.parametrize(
    "step",
    [by_another_name, any_arguments, with_loader_index, batch_alone, by_its_usual_name],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("kind", [AnytimeEvaluation, ProtocolGuard])
def test_every_signature_that_lightning_takes(kind, step):
    class Signed(Module):
        def check(self, batch, index):
            self.indices.append(index)
            return Module.validation_step(self, batch, index)

    Signed.validation_step = step
    Signed.indices = []
    options = (
        {"every_n_samples": 8, "report": False}
        if kind is AnytimeEvaluation
        else {"duplicates": 0, "probe": 4, "print_card": False}
    )
    run(kind(**options), FineTuning(), module=Signed())
    assert set(Signed.indices) == ({0} if step is batch_alone else {0, 1, 2, 3, 4})


def test_an_error_in_the_step_leaves_the_module_as_it_was():
    class Broken(Evaluate):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.validation_step = lambda batch, batch_idx: 1 / 0
            with pytest.raises(ZeroDivisionError):
                super().on_train_batch_end(trainer, pl_module)
            del pl_module.validation_step
            assert pl_module.training
            assert torch.is_grad_enabled()
            assert trainer.training
            assert not pl_module.net.head._forward_hooks

    run(Broken(None))
