"""Labels in the items that are not those of the stream's plan: one error for every method, and for every cause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from tiny_stream import NUM_CLASSES, make_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, WeightedRandomSampler

from lightning_cl import callbacks as C
from lightning_cl.datamodules import ClassIncremental, ContinualDataModule, DatasetSource
from lightning_cl.datamodules.label_check import check_labels, class_ids_in

pytestmark = pytest.mark.filterwarnings("ignore")
LABELS = [c for c in range(NUM_CLASSES) for _ in range(4)]


class Pictures(Dataset):
    """A data set as torchvision makes them: ``targets`` beside items that have been through a target transform."""

    def __init__(self, change: Any = lambda label: label, targets: Any = None) -> None:
        self.change, self.targets = change, LABELS if targets is None else targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Any:
        return torch.full((4,), float(i % 4)), self.change(LABELS[i])


class Renumbered(Subset):
    """The classes of a data set in an order of their own; the labels are read through it, from the data set."""

    def __getitem__(self, index: Any) -> Any:
        picture, label = self.dataset[self.indices[index]]
        return picture, NUM_CLASSES - 1 - label

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices]


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).clamp(-1, 1).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Reversing(Net):
    """Mixes the rows up on the device, images and labels alike."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [part.flip(0) for part in batch]


class FromOne(Reversing):
    """Undoes what the data set does to the labels."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0], batch[1] - 1


def fit(data: Any, *callbacks: Any, module: Any = None, kind: type[ContinualDataModule] = ContinualDataModule) -> None:
    source = DatasetSource(data, data)
    stream = kind(source, ClassIncremental(num_tasks=2, class_order="natural"), batch_size=6)
    make_trainer(callbacks=callbacks).fit(module or Net(), datamodule=stream)


WATCHING = [
    lambda: C.FineTuning(),
    lambda: C.PrototypeClassifier(),
    lambda: C.ExperienceReplay(8, 4),
    lambda: C.ExperienceReplay(8, 4, store="sample"),
    lambda: C.ContinualEvaluation(report=False, print_table=False),
]
CAUSES = {
    "a target transform": lambda: Pictures(lambda label: (label + 3) % NUM_CLASSES),
    "labels from 1": lambda: Pictures(lambda label: label + 1),
    "a renumbered subset": lambda: Renumbered(Pictures(), range(24)),
    "a late class only": lambda: Pictures(lambda label: 3 if label == 5 else label),
}


@pytest.mark.parametrize("callback", WATCHING, ids=["finetuning", "prototypes", "index", "sample", "evaluation"])
@pytest.mark.parametrize("cause", CAUSES)
def test_the_first_batch_of_each_task_shows_both(cause, callback):
    with pytest.raises(ValueError, match=r"other class ids than the stream's: sample \d+ .*has \d in the batch and \d"):
        fit(CAUSES[cause](), callback())


@pytest.mark.parametrize("module", [Net, Reversing])
def test_labels_that_fit_are_no_matter_in_which_order(module):
    for callback in WATCHING:
        fit(Pictures(), callback(), module=module())


def test_what_the_module_gets_counts():
    fit(Pictures(lambda label: label + 1), C.FineTuning(), module=FromOne())


def test_nobody_goes_by_the_classes():
    fit(Pictures(lambda label: label + 1))


def test_both_labels_are_in_the_message():
    with pytest.raises(
        ValueError, match=r"sample 7 .* has 3 in the batch and 2 .*begins \[1, 3\], by the source \[1, 2\]"
    ):
        check_labels(torch.tensor([1, 3]), torch.tensor([1, 2]), torch.tensor([5, 7]))
    check_labels(torch.tensor([1, 3]), torch.tensor([3, 1]), torch.tensor([5, 7]), moved=True)


@pytest.mark.parametrize(
    "targets",
    [torch.zeros(3), torch.zeros(3, 6), torch.zeros(3, 2, 2, dtype=torch.long), torch.ones(3) > 0, ["a", "b", "c"]],
)
def test_other_targets_are_no_class_ids(targets):
    assert class_ids_in((torch.rand(3, 4), targets), None, 3) is None


# ---------------------------------------------------------------------- a loader of the user's own


class Weighted(ContinualDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(Pictures(), 6, sampler=WeightedRandomSampler(torch.ones(24), 24))


@pytest.mark.parametrize("callback", WATCHING, ids=["finetuning", "prototypes", "index", "sample", "evaluation"])
def test_a_training_loader_that_nobody_planned_is_refused(callback):
    said = (
        r"`Weighted.train_dataloader` gives a DataLoader, but \w+ goes by the samples and classes of the stream's own"
    )
    with pytest.raises(ValueError, match=said):
        fit(Pictures(), callback(), kind=Weighted)


def test_without_a_method_it_is_the_users_affair():
    fit(Pictures(), kind=Weighted)


class WithLoader(Net):
    def train_dataloader(self) -> Any:
        raise AssertionError("is not asked")


def test_a_loader_of_the_module_is_said_not_to_be_used():
    with pytest.warns(UserWarning, match=r"`WithLoader.train_dataloader` is not used"):
        fit(Pictures(), C.FineTuning(), module=WithLoader())
