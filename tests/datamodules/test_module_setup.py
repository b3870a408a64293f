"""Methods attach to a network that the module makes in ``setup`` or ``configure_model``."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_stream import TinyModule, make_stream, make_trainer
from torch import nn
from torch.testing import assert_close

import lightning_cl
from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay

pytestmark = pytest.mark.filterwarnings("ignore")


class InSetup(TinyModule):
    """Replaces a head of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 50)), []

    def setup(self, stage: str) -> None:
        self.calls.append(stage)
        if self.net[-1].out_features == 50:
            self.net[-1] = nn.Linear(8, self.trainer.datamodule.num_classes)
            self.names = self.trainer.datamodule.class_names


class InConfigureModel(TinyModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = None, []

    def configure_model(self) -> None:
        self.calls.append("configure_model")
        if self.net is None:
            self.net = TinyModule().net


class Order(Callback):
    def setup(self, trainer, pl_module, stage):
        self.head = pl_module.continual_head


def run(module, folder, *callbacks):
    seed_everything(0, verbose=False)
    callbacks = [ExperienceReplay(memory_size=33), ContinualEvaluation(report=False, print_table=False), *callbacks]
    trainer = make_trainer(folder, callbacks)
    trainer.fit(module, datamodule=make_stream())
    return trainer


@pytest.mark.parametrize(("kind", "calls"), [(InSetup, ["fit"]), (InConfigureModel, ["configure_model"])])
def test_methods_attach_to_what_was_built(kind, calls, tmp_path):
    module, order = kind(), Order()
    run(module, tmp_path, order)
    assert module.calls == calls  # once, though it came early
    assert order.head is module.net[-1]
    assert module.net[-1].out_features == 6
    assert not {"setup", "configure_model"} & set(vars(module))


@pytest.mark.parametrize("kind", [InSetup, InConfigureModel])
def test_a_trained_module_is_tested_and_restored(kind, tmp_path):
    module = kind()
    trainer = run(module, tmp_path, ModelCheckpoint(tmp_path, save_last=True))
    path, method = str(tmp_path / "last.ckpt"), ExperienceReplay(memory_size=33)
    expected = trainer.test(module, make_stream(), verbose=False)
    again = make_trainer(tmp_path, [method])
    (found,) = again.test(kind(), make_stream(), ckpt_path=path, verbose=False)
    assert found["test_loss"] == expected[0]["test_loss"]
    restored = lightning_cl.restore(path, kind(), [ExperienceReplay(memory_size=33)])
    images = torch.randn(5, 1, 8, 8)
    assert_close(restored(images), module.eval()(images), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="not attached"):
        _ = restored.trainer


def test_a_failed_fit_leaves_the_hooks_in_place(tmp_path):
    class Failing(Callback):
        def setup(self, trainer, pl_module, stage):
            raise ConnectionAbortedError

    module = InSetup()
    with pytest.raises(ConnectionAbortedError):
        run(module, tmp_path, Failing())
    assert "setup" not in vars(module)


def test_setup_may_ask_to_come_behind_the_methods(tmp_path):
    class Looking(TinyModule):
        attach_before_setup = True

        def setup(self, stage: str) -> None:
            self.masked = self.continual.mask is not None

    module = Looking()
    run(module, tmp_path)
    assert module.masked


def test_num_classes_and_names():
    stream = make_stream()
    stream.setup()
    assert (stream.num_classes, len(stream.class_names)) == (6, 6)
