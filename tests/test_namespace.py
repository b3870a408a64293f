"""``import pytorch_lightning as pl`` works as ``lightning.pytorch`` does; both at once are one error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_cl
from lightning_cl.namespace import chosen_package

pytest.importorskip("pytorch_lightning")

MODULE = """
import sys
import pytorch_lightning as pl
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = VisionTransformer(
            img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=2, num_heads=2, num_classes=6
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def stream():
    x, y = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 6
    source = ArraySource((x, y), (x, y))
    return ContinualDataModule(source, ClassIncremental(3), batch_size=4, train_transform=False, eval_transform=False)


def trainer(package, folder, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return package.Trainer(accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **quiet, **options)
"""
IMPORTS = """
import lightning_cl
from lightning_cl.callbacks import ContinualEvaluation, ExperienceReplay, L2P
from lightning_cl.datamodules import ArraySource, ClassIncremental, ContinualDataModule
"""
FITS = """
class Cut(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 3:
            raise ConnectionAbortedError


def fit(folder, method, *callbacks, ckpt_path=None):
    pl.seed_everything(0, verbose=False)
    module, evaluation = Module(), ContinualEvaluation(report=False, print_table=False)
    saving = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)
    try:
        fitting = trainer(pl, folder, method, evaluation, saving, *callbacks)
        fitting.fit(module, datamodule=stream(), ckpt_path=ckpt_path)
    except ConnectionAbortedError:
        pass
    return module.state_dict(), evaluation


def prompts():
    return L2P(pool_size=4, prompt_length=2, top_k=2)


folder = sys.argv[1]
state, evaluation = fit(folder + "/replay", ExperienceReplay(memory_size=8, batch_size=4))
assert (evaluation.total.diagonal() > 0).all()
whole, _ = fit(folder + "/whole", prompts())
fit(folder + "/cut", prompts(), Cut())
resumed, _ = fit(folder + "/cut", prompts(), ckpt_path=folder + "/cut/last.ckpt")
assert whole.keys() == resumed.keys()
assert all(torch.equal(whole[name], resumed[name]) for name in whole)
restored = lightning_cl.restore(folder + "/cut/last.ckpt", Module(), [prompts()])
assert all(torch.equal(whole[name], value) for name, value in restored.state_dict().items())
assert "lightning.pytorch" not in sys.modules
"""
MIXED = """
import lightning.pytorch
for package in (pl, lightning.pytorch):
    try:
        trainer(package, sys.argv[1], max_epochs=-1).fit(Module(), datamodule=stream())
        print("no error")
    except Exception as error:
        print(type(error).__name__, error)
"""


def program(folder: Path, *parts: str, **environment: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", "".join(parts), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stream_runs_is_resumed_and_restored(tmp_path):
    program(tmp_path, MODULE, IMPORTS, FITS)


@pytest.mark.slow
def test_both_at_once_are_one_error(tmp_path):
    of_ours, of_lightning = program(tmp_path, "import lightning.pytorch\n", MODULE, IMPORTS, MIXED).splitlines()
    assert "is of `pytorch_lightning`, but lightning_cl uses `lightning.pytorch`" in of_ours
    assert "LIGHTNING_CL_NAMESPACE=pytorch_lightning" in of_ours
    assert "`model` must be a `LightningModule`" in of_lightning  # before anything of a stream is asked


@pytest.mark.parametrize(
    ("environment", "modules", "expected"),
    [
        (None, (), "lightning"),
        (None, ("lightning.pytorch", "pytorch_lightning"), "lightning"),
        (None, ("pytorch_lightning",), "pytorch_lightning"),
        ("lightning", ("pytorch_lightning",), "lightning"),
        ("pytorch_lightning", ("lightning.pytorch",), "pytorch_lightning"),
    ],
)
def test_what_was_imported_decides_and_a_setting_overrides(environment, modules, expected):
    given = {} if environment is None else {"LIGHTNING_CL_NAMESPACE": environment}
    assert chosen_package(given, modules) == expected


def test_another_setting_is_refused():
    with pytest.raises(ValueError, match='\'pl\'; give "lightning" or "pytorch_lightning"'):
        chosen_package({"LIGHTNING_CL_NAMESPACE": "pl"}, ())


def test_lightning_is_imported_in_one_place():
    package = Path(lightning_cl.__file__).parent
    imports = re.compile(r"^\s*(from|import) (lightning|pytorch_lightning|lightning_fabric)\b", re.MULTILINE)
    found = [str(path.relative_to(package)) for path in package.rglob("*.py") if imports.search(path.read_text())]
    assert found == ["namespace.py"]
