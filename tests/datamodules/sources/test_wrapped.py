from __future__ import annotations

import pickle

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate

from lightning_cl.datamodules import DataModuleSource, DatasetSource


class Items(Dataset):
    """Fails when an item is fetched before ``decodable`` is set."""

    def __init__(self, labels, name="targets", kind=tuple, classes=None):
        self.known, self.kind, self.decodable = list(labels), kind, False
        if name:
            setattr(self, name, self.known)
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.known)

    def __getitem__(self, index):
        assert self.decodable, "labels must be read without decoding"
        image, label = torch.full((1,), float(index)), self.known[index]
        return {"image": image, "y": label} if self.kind is dict else self.kind((image, label))


def opened(*args, **kwargs):
    source = DatasetSource(*args, **kwargs)
    source.setup()
    return source


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_items_pass_through_unchanged(name, kind):
    train = Items([0, 1, 0], name, kind, classes=["a", "b"])
    source = opened(train, Items([1], name, kind))
    assert (source.train_labels.tolist(), source.test_labels.tolist()) == ([0, 1, 0], [1])
    assert source.class_names == ("a", "b")
    train.decodable = True
    assert source.item("train", 2) == train[2]
    assert type(source.item("train", 2)) is kind
    assert source.train_transform() is source.eval_transform() is source.collate_fn is None


def test_labels_through_subsets_and_concatenations():
    data = Items([0, 1, 2, 0, 1, 2], classes=["a", "b", "c"])
    nested = Subset(Subset(data, [5, 4, 3, 2]), [0, 3, 2])  # items 5, 2, 3
    joined = ConcatDataset([nested, Items([1])])
    source = opened(joined, torch.utils.data.random_split(data, [4, 2])[1])
    assert source.train_labels.tolist() == [2, 2, 0, 1]
    assert source.class_names == ("a", "b", "c")
    data.decodable = True
    assert [source.test_labels[i].item() for i in range(2)] == [source.item("test", i)[1] for i in range(2)]


def test_a_subset_of_the_first_classes_takes_their_names():
    data = Items([0, 1, 2, 3], classes=["a", "b", "c", "d"])
    assert opened(Subset(data, [0, 1]), Subset(data, [1])).class_names == ("a", "b")


def test_tensor_datasets():
    data = TensorDataset(torch.rand(3, 2), torch.tensor([1, 0, 1]))
    assert opened(data, data).train_labels.tolist() == [1, 0, 1]


def test_given_targets_and_domains():
    source = opened(
        Items([0, 1], None), Items([1], None), [0, 1], torch.tensor([1]), ["x", "y"],
        train_domains=[0, 1], test_domains=[0], domain_names=["day", "night"],
    )  # fmt: skip
    assert (source.class_names, source.domain_names) == (("x", "y"), ("day", "night"))
    assert pickle.loads(pickle.dumps(source)).digest() == source.digest()


@pytest.mark.parametrize(
    ("train", "test", "targets", "message"),
    [
        (Items([0], None), Items([0]), {}, "labels of Items cannot be read without decoding.*pass `train_targets=`"),
        (Items([0]), Subset(Items([0], None), [0]), {}, "pass `test_targets=`"),
        (Items([0, 1]), Items([0]), {"train_targets": [0, 1, 1]}, "has 2 items but 3 labels; pass `train_targets=`"),
        (Items([0, 5]), Items([0]), {}, "no training samples"),
        (Items([0.5, 1.0]), Items([0]), {}, r"`Items\.targets` must be integers"),
    ],
)
def test_wrong_labels(train, test, targets, message):
    with pytest.raises(ValueError, match=message):
        opened(train, test, **targets)


def collate(items):
    return default_collate(items)


class Data(LightningDataModule):
    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare_data(self):
        self.calls.append("prepare")

    def setup(self, stage):
        self.calls.append(stage)
        self.data = Items([0, 1, 2, 0, 1, 2], classes=["a", "b", "c"])

    def train_dataloader(self):
        return DataLoader(Subset(self.data, [0, 1, 2, 3]), batch_size=2, shuffle=True, collate_fn=collate)

    def val_dataloader(self):
        return DataLoader(Subset(self.data, [4]))


class DataWithTest(Data):
    def test_dataloader(self):
        return DataLoader(Subset(self.data, [5]))


@pytest.mark.parametrize(
    ("datamodule", "evaluate", "label"),
    [(Data, None, 1), (Data, "val", 1), (DataWithTest, None, 2), (DataWithTest, "test", 2), (DataWithTest, "val", 1)],
)
def test_data_module(datamodule, evaluate, label):
    source = DataModuleSource(datamodule(), evaluate)
    source.prepare()
    source.setup()
    source.setup()
    stages = ["fit", "test"] if label == 2 else ["fit"]
    assert source.datamodule.calls == ["prepare", *stages]
    assert source.train_labels.tolist() == [0, 1, 2, 0]
    assert source.test_labels.tolist() == [label]
    assert source.class_names == ("a", "b", "c")
    assert source.collate_fn is collate
    source.datamodule.data.decodable = True
    assert source.item("train", 3)[1] == 0


def test_data_module_from_datasets():
    data = Items([0, 1])
    source = DataModuleSource(LightningDataModule.from_datasets(data, val_dataset=Items([1]), num_workers=0))
    source.prepare()
    source.setup()
    assert source.test_labels.tolist() == [1]


class NoTrain(LightningDataModule):
    def test_dataloader(self):
        return DataLoader(Items([0]))


class ManyLoaders(Data):
    def val_dataloader(self):
        return [super().val_dataloader()]


@pytest.mark.parametrize(
    ("datamodule", "evaluate", "message"),
    [
        (NoTrain, None, "NoTrain defines no `train_dataloader`"),
        (Data, "test", "Data defines no `test_dataloader`; add one, choose another with `evaluate=`"),
        (ManyLoaders, None, r"`ManyLoaders\.val_dataloader\(\)` returned list; one DataLoader is expected"),
    ],
)
def test_unusable_data_modules(datamodule, evaluate, message):
    with pytest.raises(ValueError, match=message):
        DataModuleSource(datamodule(), evaluate).setup()


def test_unreadable_labels_of_a_data_module_name_the_argument():
    class Unlabelled(Data):
        def setup(self, stage):
            self.data = Items([0, 1, 0, 1, 0, 1], None)

    with pytest.raises(ValueError, match="pass `train_targets=`"):
        DataModuleSource(Unlabelled()).setup()
    source = DataModuleSource(Unlabelled(), train_targets=[0, 1, 0, 1], test_targets=[0])
    source.setup()
    assert source.num_classes == 2


def test_wrong_choice():
    with pytest.raises(ValueError, match="`evaluate` is 'train'"):
        DataModuleSource(Data(), "train")
