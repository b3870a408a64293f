"""Replay of images of any size with their boxes, by domain, to a module without a class head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_cl.callbacks import ExperienceReplay
from lightning_cl.datamodules import ContinualDataModule, DatasetSource, DomainIncremental, as_lists
from lightning_cl.nn.replay import ReplayBuffer, check_rows, join, take

pytestmark = pytest.mark.filterwarnings("ignore")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def sample(number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """An image of its own size, and as many boxes as its number says."""
    return torch.full((1, 2, 3 + number), float(number)), {"boxes": torch.full((number, 4), float(number))}


class Detector(LightningModule):
    """Looks at the mean of an image; notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.steps: list[tuple[int, list[int], list[int]]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        given = [int(image[0, 0, 0]) for image in images], [len(target["boxes"]) for target in targets]
        self.steps.append((self.trainer.datamodule.task_index, *given))  # type: ignore[attr-defined]
        return torch.stack([(self.scale * image).mean() for image in images]).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder: Path, **options: Any) -> Detector:
    data, domains = [sample(number) for number in range(1, 9)], [0] * 4 + [1] * 4
    known = {"train_domains": domains, "test_domains": domains, "classes": False, "collate_fn": as_lists}
    stream = ContinualDataModule(DatasetSource(data, data, **known), DomainIncremental(), batch_size=2)
    module, method = Detector(), ExperienceReplay(memory_size=4, batch_size=2, **options)
    Trainer(max_epochs=-1, accelerator="cpu", callbacks=[method], default_root_dir=folder, **QUIET).fit(
        module, datamodule=stream
    )
    return module


def test_remembered_images_come_with_their_boxes(tmp_path: Path) -> None:
    module = fit(tmp_path)
    assert len(module.steps[0][1]) == 2
    assert all(len(images) == 4 for _, images, _ in module.steps[1:])
    assert all(images == boxes for _, images, boxes in module.steps)
    second = [images for task, images, _ in module.steps if task == 1]
    assert all(min(images[:2]) > 4 for images in second)
    assert max(second[0][2:]) <= 4  # of the first domain, which is all that the memory knows


def test_samples_are_refused_where_they_would_be_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='keeps the positions alone; set `store="index"`'):
        fit(tmp_path, store="sample")


def test_rows_of_lists() -> None:
    batch = as_lists([sample(number) for number in (1, 2)])  # as many rows as parts
    check_rows(batch, 2)
    with pytest.raises(ValueError, match=r"`batch\[0\]` is a list of 2 values"):
        check_rows(batch, 3)
    swapped = take(batch, torch.tensor([1, 0]))
    joined = join(swapped, take(batch, torch.tensor([0])))
    assert [int(image[0, 0, 0]) for image in joined[0]] == [2, 1, 1]
    assert [len(target["boxes"]) for target in joined[1]] == [2, 1, 1]
    check_rows(joined, 3)
    with pytest.raises(ValueError, match="a list with an entry of any size for each sample"):
        ReplayBuffer(2).add(batch, torch.zeros(2, dtype=torch.long))
