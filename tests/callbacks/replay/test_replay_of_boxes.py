"""Replay of images of any size with their boxes, by domain, to a module without a class head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchvision import tv_tensors

from lightning_cl import restore
from lightning_cl.callbacks import ExperienceReplay
from lightning_cl.datamodules import (
    BoxSource,
    ContinualDataModule,
    DatasetSource,
    DomainIncremental,
    MultiLabelIncremental,
    as_lists,
)
from lightning_cl.nn.replay import ReplayBuffer, check_rows, join, take
from lightning_cl.sample_list import SampleList

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


class InPlace(Detector):
    """Works in place on what it was given, after it has noted and learned it."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.given = batch
        return super().training_step(batch, batch_idx)

    def on_after_backward(self) -> None:
        for image, target in zip(*self.given, strict=True):
            image.add_(100)
            target["boxes"].resize_(0, 4)


def fit(folder: Path, build: type[Detector] = Detector, **options: Any) -> Detector:
    data, domains = [sample(number) for number in range(1, 9)], [0] * 4 + [1] * 4
    known = {"train_domains": domains, "test_domains": domains, "classes": False, "collate_fn": as_lists}
    stream = ContinualDataModule(DatasetSource(data, data, **known), DomainIncremental(), batch_size=2)
    module, method = build(), ExperienceReplay(memory_size=4, batch_size=2, **options)
    Trainer(max_epochs=-1, accelerator="cpu", callbacks=[method], default_root_dir=folder, **QUIET).fit(
        module, datamodule=stream
    )
    return module


@pytest.mark.parametrize("store", ["index", "sample"])
def test_remembered_images_come_with_their_boxes(store: str, tmp_path: Path) -> None:
    module = fit(tmp_path, InPlace if store == "sample" else Detector, store=store)
    assert len(module.steps[0][1]) == 2
    assert all(len(images) == 4 for _, images, _ in module.steps[1:])
    assert all(images == boxes for _, images, boxes in module.steps)
    second = [images for task, images, _ in module.steps if task == 1]
    assert all(min(images[:2]) > 4 for images in second)
    assert max(second[0][2:]) <= 4  # of the first domain, which is all that the memory knows


def pair(number: int, labels: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    """An image of its own with a box for each label."""
    boxes = torch.tensor(labels).float()[:, None].expand(-1, 4)
    return torch.full((1, 2, 3), float(number)), {"boxes": boxes, "labels": torch.tensor(labels)}


def fit_by_class(folder: Path, image_type: Any = None, **options: Any) -> Any:
    """Three images of class 0, two of 0 and 1, three of 1; class 0 comes first."""
    sets = [[0]] * 3 + [[0, 1]] * 2 + [[1]] * 3
    data = [pair(number, [label + 1 for label in labels]) for number, labels in enumerate(sets)]
    data = data if image_type is None else [(image_type(image), target) for image, target in data]
    stream = ContinualDataModule(
        BoxSource(data, data, sets, sets), MultiLabelIncremental(2, class_order=[0, 1]), batch_size=2, epochs_per_task=1
    )
    module, method = Labelled(), ExperienceReplay(memory_size=4, batch_size=2, **options)
    trainer = Trainer(max_epochs=-1, accelerator="cpu", callbacks=[method], default_root_dir=folder, **QUIET)
    trainer.fit(module, datamodule=stream)
    trainer.save_checkpoint(folder / "end.ckpt")
    return module, method


class Labelled(Detector):
    """Notes numbers and labels."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        given = [int(image[0, 0, 0]) for image in images], [target["labels"].tolist() for target in targets]
        self.steps.append((self.trainer.datamodule.task_index, *given))  # type: ignore[attr-defined, arg-type]
        return torch.stack([(self.scale * image).mean() for image in images]).sum()


def test_an_image_of_several_classes_comes_again_with_the_boxes_of_its_task(tmp_path: Path) -> None:
    module, method = fit_by_class(tmp_path, store="sample")
    second = [step for step in module.steps if step[0] == 1]
    assert all(labels[:2] == [[2], [2]] for _, _, labels in second if len(labels) == 4)
    remembered = [pair for _, images, labels in second for pair in zip(images[-2:], labels[-2:], strict=True)]
    assert any(labels == [1] for _, labels in remembered)
    assert all(labels == ([1] if number < 3 else labels) and len(labels) == 1 for number, labels in remembered)
    facts = method.report_facts()
    assert facts["stored_samples"] == 4
    assert facts["stored_bytes"] == 4 * (8 + 4 * 6 + 4 * 4 + 8)  # place, image, box, label


def test_a_memory_of_images_of_any_size_is_saved_and_opened(tmp_path: Path) -> None:
    batch, labels = as_lists([sample(number) for number in (1, 2, 3)]), torch.zeros(3, dtype=torch.long)
    first, second = ReplayBuffer(4), ReplayBuffer(4)
    first.add(batch, labels)
    batch[0][0].fill_(9.0)  # the memory has copies
    torch.save(first.state_dict(), tmp_path / "memory.pt")
    second.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    for buffer in (first, second):
        images, targets = buffer.read(buffer.used)
        assert [int(image[0, 0, 0]) for image in images] == [1, 2, 3]
        assert [len(target["boxes"]) for target in targets] == [1, 2, 3]
        assert (type(images), type(targets)) == (SampleList, SampleList)
        images[0].fill_(9.0)
        assert int(buffer.read(buffer.used)[0][0].max()) == 1
    assert first.nbytes == second.nbytes == 4 * 8 + 4 * 2 * (4 + 5 + 6) + 4 * 4 * 6


def test_torchvisions_images_are_remembered_as_plain_tensors_and_the_run_is_restored(tmp_path: Path) -> None:
    module, _ = fit_by_class(tmp_path, image_type=tv_tensors.Image, store="sample")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert "ExperienceReplay" in "".join(saved["callbacks"])
    method = ExperienceReplay(memory_size=4, batch_size=2, store="sample")
    restored = restore(tmp_path / "end.ckpt", Labelled(), [method])
    assert torch.equal(restored.scale, module.scale)


def test_positions_of_images_of_several_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='the boxes of its own classes alone; set `store="sample"`'):
        fit_by_class(tmp_path)


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
