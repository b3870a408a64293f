"""A wrapped data module's own batch hooks are called on every batch that the module gets, with its Trainer."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from tiny_stream import make_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_cl.callbacks import AnytimeEvaluation, DERPlusPlus, ExperienceReplay, PrototypeClassifier
from lightning_cl.datamodules import ClassIncremental, ClassSubset, ContinualDataModule, DataModuleSource

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES, WIDTH = 6, 3


class Raw(Dataset):
    """Values of mean 1485, as a satellite gives them; the last value is the number of the sample."""

    def __init__(self) -> None:
        self.targets = [c for c in range(CLASSES) for _ in range(4)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        return {"image": torch.tensor([1485.0, 1485.0 + i, float(i)]), "label": self.targets[i]}


class Normalising(LightningDataModule):
    """Does on the device what torchgeo's data modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def train_dataloader(self) -> Any:
        return DataLoader(Raw(), batch_size=4)

    val_dataloader = train_dataloader

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "before": torch.ones(len(batch["label"]))}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**moved, "moved": torch.full((len(moved["label"]),), 2.0)}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        stage = "training" if self.trainer.training else "evaluation"  # torchgeo augments by it
        self.asked.append(stage)
        image = torch.cat([batch["image"][:, :2] - 1485, batch["image"][:, 2:]], 1)
        return {**batch, "image": image}


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.seen = nn.Linear(WIDTH, CLASSES), list[Any]()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch)
        return self(batch["image"]).clamp(-1, 1).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch)
        self(batch["image"])

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def stream_over(source: Any, kind: type[ContinualDataModule] = ContinualDataModule, **options: Any) -> Any:
    scenario = ClassIncremental(num_tasks=2, class_order="natural")
    return kind(source, scenario, batch_size=4, **options)


def run(*callbacks: Any, **options: Any) -> tuple[Net, Normalising]:
    module, data = Net(), Normalising()
    trainer = make_trainer(callbacks=callbacks)
    trainer.fit(module, datamodule=stream_over(DataModuleSource(data), **options))
    trainer.test(module, datamodule=trainer.datamodule)
    return module, data


def assert_went_through(batches: list[Any]) -> None:
    """Every hook, once."""
    assert batches
    for batch in batches:
        number = batch["image"][:, 2]
        assert torch.equal(batch["image"][:, :2], torch.stack([torch.zeros_like(number), number], 1))
        assert batch["before"].unique().tolist() == [1.0]
        assert batch["moved"].unique().tolist() == [2.0]


REPLAY = [(lambda store=store: ExperienceReplay(8, 3, store=store)) for store in ("index", "sample")]


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}], ids=["here", "in a worker"])
def test_every_batch_of_a_run_goes_through_the_hooks(options):
    module, data = run(**options)
    assert_went_through(module.seen)
    assert data.asked.count("training") == 6
    assert "evaluation" in data.asked
    assert data.trainer is None  # as it was


@pytest.mark.parametrize("callback", [*REPLAY, lambda: AnytimeEvaluation(every_n_samples=4, report=False)])
def test_so_do_remembered_samples_and_an_evaluation_within_training(callback):
    module, _ = run(callback())
    assert_went_through(module.seen)
    if isinstance(callback(), ExperienceReplay):
        assert max(len(batch["label"]) for batch in module.seen) == 4 + 3


@pytest.mark.parametrize("store", ["index", "sample"])
def test_a_memory_that_is_drawn_apart_goes_through_the_last_hook_once(store):
    given: list[Tensor] = []

    class Watched(Net):
        def forward(self, x: Tensor) -> Tensor:
            given.append(x)
            return super().forward(x)

    method = DERPlusPlus(memory_size=8, batch_size=3, store=store)
    make_trainer(callbacks=[method]).fit(Watched(), datamodule=stream_over(DataModuleSource(Normalising())))
    assert {len(x) for x in given} == {3, 4}
    for x in given:
        assert torch.equal(x[:, :2], torch.stack([torch.zeros(len(x)), x[:, 2]], 1))


def test_class_means_are_of_what_the_hooks_made():
    module, _ = run(PrototypeClassifier(distance="cosine", normalize=False))
    numbers = torch.arange(24.0).view(CLASSES, 4).mean(1)
    expected = torch.stack([torch.zeros(CLASSES), numbers, numbers], 1).double()
    torch.testing.assert_close(module.prototypes.means, expected)


def test_a_part_of_the_classes_has_them_too():
    module, source = Net(), ClassSubset(DataModuleSource(Normalising()), classes=[0, 2, 3, 5])
    make_trainer().fit(module, datamodule=stream_over(source))
    assert_went_through(module.seen)


def test_a_hook_of_the_stream_itself_wins():
    class Own(ContinualDataModule):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return {**batch, "image": -batch["image"]}

    module = Net()
    make_trainer().fit(module, datamodule=stream_over(DataModuleSource(Normalising()), Own))
    assert all(batch["image"].max() <= 0 for batch in module.seen)


def test_an_extended_stream_cannot_mix_them():
    stream = stream_over(DataModuleSource(Normalising()))
    stream.extend(DataModuleSource(Normalising()), ClassIncremental(num_tasks=2))
    said = r"data module in DataModuleSource \(on_before_batch_transfer, .*\) has batch hooks of its own"
    with pytest.raises(ValueError, match=said):
        stream.setup()


def test_a_source_with_hooks_can_be_pickled():
    source = DataModuleSource(Normalising())
    source.setup()
    assert set(pickle.loads(pickle.dumps(source)).batch_hooks) == set(source.batch_hooks)
    assert len(source.batch_hooks) == 3
