"""Private names of other libraries that the package stands on: few, each listed here, and each still there."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.strategies import launchers
from timm.models.vision_transformer import VisionTransformer
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MeanMetric
from torchvision.datasets import Omniglot

import lightning_cl

ROOT = Path(lightning_cl.__file__).parent
MOST = 25


@pytest.fixture(scope="module")
def owners() -> dict[str, Any]:
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    fit = trainer.fit_loop
    return {
        "Trainer": trainer,
        "fit loop": fit,
        "epoch loop": fit.epoch_loop,
        "validation loop": fit.epoch_loop.val_loop,
        "signal connector": trainer._signal_connector,
        "LightningModule": LightningModule(),
        "AsyncCheckpointIO": AsyncCheckpointIO(),
        "launchers": launchers,
        "parser": LightningArgumentParser(),
        "Metric": MeanMetric(),
        "Tensor": torch.zeros(()),
        "Module": torch.nn.Module(),
        "DistributedDataParallel": DistributedDataParallel,
        "VisionTransformer": VisionTransformer,
    }


#: Name, and whose it is. Tried with lightning 2.6.6, torch 2.14.1, torchmetrics 1.9, timm 1.0, Python 3.11.
PRIVATE = {
    "_MultiProcessingLauncher": "launchers",
    "_batches_that_stepped": "epoch loop",
    "_call_batch_hook": "LightningModule",
    "_can_stop_early": "fit loop",
    "_checkpoint_connector": "Trainer",
    "_checkpoint_io": "AsyncCheckpointIO",
    "_copy_state_dict": "Metric",
    "_data_fetcher": "fit loop",
    "_is_synced": "Metric",
    "_logger_connector": "Trainer",
    "_non_persistent_buffers_set": "Module",
    "_on_before_batch_transfer": "LightningModule",
    "_option_string_actions": "parser",
    "_original_handlers": "signal connector",
    "_pos_embed": "VisionTransformer",
    "_restarting": "fit loop",
    "_results": "validation loop",
    "_set_params_and_buffers_to_ignore_for_model": "DistributedDataParallel",
    "_should_accumulate": "epoch loop",
    "_should_check_val_fx": "epoch loop",
    "_signal_connector": "Trainer",
    "_version": "Tensor",
}
#: Found in the source of a class, since objects of it need files or an account.
IN_THE_SOURCE = {"_characters": Omniglot, "_flat_character_images": Omniglot, "_prefix": WandbLogger}


def own_names(trees: list[ast.Module]) -> set[str]:
    """What the package itself defines: functions, classes, and attributes of its own objects and classes."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            targets = [t for part in node.body for t in getattr(part, "targets", [getattr(part, "target", None)])]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            names.update({node.attr} if node.value.id in ("self", "cls") else ())
    return names


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_uses(trees: list[ast.Module]) -> Iterator[str]:
    """Private attributes that nothing of the package defines, and private imports from elsewhere."""
    own = own_names(trees)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.attr
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("lightning_cl"):
            yield from (alias.name for alias in node.names if is_private(alias.name))
            yield from (part for part in node.module.split(".") if is_private(part))


def parsed(folder: Path) -> list[ast.Module]:
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))]


def test_they_are_few_and_listed() -> None:
    uses = Counter(private_uses(parsed(ROOT)))
    assert uses.keys() == PRIVATE.keys() | IN_THE_SOURCE.keys(), "list what is new, and leave out what is gone"
    assert uses.total() <= MOST


def test_a_use_is_found() -> None:
    source = "from torch._dynamo import reset, _own\nclass A:\n    _x: int = 0\n    def f(self, o):\n"
    source += "        self._mine = o._theirs + self._x + self._mine + o.__dict__\n"
    assert list(private_uses([ast.parse(source)])) == ["_own", "_dynamo", "_theirs"]


@pytest.mark.parametrize("name", PRIVATE)
def test_it_is_still_there(name: str, owners: dict[str, Any]) -> None:
    assert hasattr(owners[PRIVATE[name]], name)


@pytest.mark.parametrize("name", IN_THE_SOURCE)
def test_it_is_still_set(name: str) -> None:
    assert re.search(rf"self\.{name}\b.* = ", inspect.getsource(IN_THE_SOURCE[name]))
