"""A continual module and its checkpoints in Lightning's own hands: they work there, or the error names ``restore``."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.methods import METHODS, make
from conformance.modules import PLAIN
from conformance.runs import attached, finished_run, train
from conformance.streams import make_stream
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_cl.callbacks import CODAPrompt, FineTuning, PrototypeClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
HINT = r"open this with lightning_cl\.restore\(checkpoint, model, callbacks\)"
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


class Model(type(PLAIN.build("adamw", 0.0))):
    """With arguments that have defaults, as `load_from_checkpoint` wants them."""

    def __init__(self) -> None:
        super().__init__("adamw", 0.0)


def trainer(folder: Path, *callbacks: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**quiet, max_epochs=1, devices=1, default_root_dir=folder, callbacks=list(callbacks))


def trained(folder: Path, method: Any) -> tuple[Any, str]:
    saver = ModelCheckpoint(folder, filename="last")
    run = train(PLAIN, make(method), folder, callbacks=[saver])
    return run.module, saver.best_model_path


@pytest.mark.parametrize("method", [CODAPrompt, FineTuning, PrototypeClassifier])
def test_a_plain_module_names_restore(method, tmp_path):
    _, path = trained(tmp_path, method)
    with pytest.raises(RuntimeError, match=HINT):
        Model.load_from_checkpoint(path)
    with pytest.warns(match=HINT):
        Model.load_from_checkpoint(path, strict=False)
    for data in ({"datamodule": make_stream()}, {"dataloaders": loader()}):
        with pytest.raises((RuntimeError, ValueError), match=HINT):
            trainer(tmp_path).validate(Model(), **data, ckpt_path=path)


def loader() -> DataLoader:
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(6) % 2), batch_size=3)


@methods
def test_plain_loaders_after_a_continual_fit(method, tmp_path):
    module = deepcopy(finished_run(method, PLAIN).module)
    if method.needs_task_identity:
        module.continual.task = 0
    with torch.no_grad():
        before = module.eval()(next(iter(loader()))[0]).clone()
    trainer(tmp_path).validate(module, loader(), verbose=False)
    with torch.no_grad():
        assert_close(module.eval()(next(iter(loader()))[0]), before)
    with pytest.raises(ValueError, match=r"carries .* was given no stream; .*lightning_cl\.restore"):
        trainer(tmp_path).fit(module, loader(), loader())


@methods
def test_the_hint_is_no_part_of_the_state(method):
    module, other = attached(PLAIN, make(method)), attached(PLAIN, make(method))
    report = other.load_state_dict(module.state_dict(), strict=True)
    assert not report.missing_keys
    assert not report.unexpected_keys
    without = {name: value for name, value in module.state_dict().items() if "lightning_cl.restore" not in name}
    other.load_state_dict(without, strict=True)  # of an earlier version
