"""Arguments of another kind than meant: one sentence that names the argument, what was given and what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from tiny_stream import TinyModule, make_source, make_stream, make_trainer
from torch.utils.data import TensorDataset

from lightning_cl import callbacks as C
from lightning_cl import datamodules as D
from lightning_cl.datamodules.argument_kinds import as_count, as_counts

pytestmark = pytest.mark.filterwarnings("ignore")
SCENARIO = D.ClassIncremental(num_tasks=3)
TABLE = D.StreamTable([0], [0], [0], [0])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (D.Digits, r"the class Digits; expected an instance of a source, such as `Digits\(\)`"),
        (SCENARIO, r"a ClassIncremental; a source comes first and the scenario second: `ContinualDataModule\(source"),
        (D.Joint, "the class Joint; a source comes first"),
        (None, r"None; expected a source, such as `DatasetSource\(train, test\)`"),
        ("data/pets", r"the text 'data/pets'; expected a source, such as `ImageFolder\('data/pets'\)`"),
        (Path("data/pets"), r"the path 'data/pets'; expected a source, such as `ImageFolder\('data/pets'\)`"),
        (TensorDataset(torch.zeros(1)), r"a TensorDataset; expected a source, such as `DatasetSource\(train, test\)`"),
        (LightningDataModule(), r"a LightningDataModule; expected a source: `DataModuleSource\(your_datamodule\)`"),
        (CombinedLoader({}), "a CombinedLoader; expected a source"),
    ],
)
def test_what_is_no_source(source, said):
    with pytest.raises(ValueError, match=f"^`source` is {said}"):
        D.ContinualDataModule(source, SCENARIO)
    with pytest.raises(ValueError, match=f"^`source` is {said}"):
        make_stream().extend(source, SCENARIO)


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        (D.ClassIncremental, r"the class ClassIncremental; expected an instance of .*, such as `C.*\(\.\.\.\)`"),
        ("class_incremental", r"the text 'class_incremental'; expected a scenario, such as `C.*\(num_tasks=5\)`"),
        (None, "None; expected a scenario"),
        (4, r"4; expected a scenario, such as `ClassIncremental\(num_tasks=4\)`"),
        ([[0, 1], [2, 3]], r"a list; expected a scenario, such as `ClassIncremental\(classes_per_task=\.\.\.\)`"),
        (TABLE, r"a StreamTable; expected a scenario: `table.as_scenario\(\)`"),
        (D.Digits(), "a Digits; a source comes first"),
    ],
)  # fmt: skip
def test_what_is_no_scenario(scenario, said):
    with pytest.raises(ValueError, match=f"^`scenario` is {said}"):
        D.ContinualDataModule(D.Digits(), scenario)
    with pytest.raises(ValueError, match=f"^`scenario` is {said}"):
        make_stream().extend(D.Digits(), scenario)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": "64"}, "`batch_size` is the text '64'; expected a whole number, or a list with one per task"),
        ({"batch_size": 6.5}, "`batch_size` is 6.5; expected a whole number"),
        ({"batch_size": [4, "8"]}, "`batch_size` is a list; expected a whole number"),
        ({"epochs_per_task": 2.0}, "`epochs_per_task` is 2.0; expected a whole number"),
        ({"epochs_per_task": True}, "`epochs_per_task` is True; expected a whole number"),
        ({"epochs_per_task": np.ones(3)}, "`epochs_per_task` is a ndarray; expected a whole number"),
        ({"eval_batch_size": "8"}, "`eval_batch_size` is the text '8'; expected a whole number"),
        ({"seed": None}, "`seed` is None; expected a whole number"),
        ({"num_workers": "2"}, "`num_workers` is the text '2'; expected a whole number"),
        ({"updates_per_batch": None}, "`updates_per_batch` is None; expected a whole number"),
        ({"val_split": "0.1"}, "`val_split` is the text '0.1'; expected a number"),
        ({"train_transform": "crop"}, "`train_transform` is the text 'crop'; expected a function, or None .*or False"),
        ({"eval_transform": True}, "`eval_transform` is True; expected a function"),
        ({"train_transform": torch.nn.Identity}, r"the class Identity; expected a function \(an instance: `Identity\("),
        ({"collate_fn": False}, "`collate_fn` is False; expected a function, or None"),
    ],
)  # fmt: skip
def test_numbers_and_functions(options, said):
    with pytest.raises(ValueError, match=said):
        make_stream(**options)


@pytest.mark.parametrize("value", [2, np.int64(2), np.array(2), torch.tensor(2)])
def test_one_number_of_any_library(value):
    assert as_counts("n", value) == 2
    assert type(as_counts("n", value)) is int
    stream = make_stream(epochs_per_task=value, batch_size=value)
    assert (stream.schedule.epochs, stream.batch_size_of(1)) == ((2, 2, 2), 2)


@pytest.mark.parametrize(
    "value", [[2, 1, 3], (2, 1, 3), np.array([2, 1, 3]), torch.tensor([2, 1, 3]), [np.int8(2), 1, 3]]
)
def test_one_number_for_each_task_of_any_library(value):
    stream = make_stream(epochs_per_task=value, batch_size=value)
    assert (stream.schedule.epochs, stream.batch_size_of(2)) == ((2, 1, 3), 3)


def test_a_count_is_a_plain_number():
    assert type(as_count("n", np.int32(4))) is int
    with pytest.raises(ValueError, match="`n` is True; expected a whole number"):
        as_count("n", True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "None; expected an instance of a callback, or leave it out"),
        (C.FineTuning, r"the class FineTuning; expected an instance, such as `FineTuning\(\.\.\.\)`"),
        ("checkpoint", "the text 'checkpoint'; expected an instance of a callback"),
    ],
)
@pytest.mark.parametrize("others", [[], [C.FineTuning()]], ids=["alone", "beside others"])
def test_what_is_no_callback(wrong, said, others):
    with pytest.raises(ValueError, match=f"^`callbacks` of the Trainer has {said}"):
        make_trainer(callbacks=[*others, wrong]).fit(TinyModule(), datamodule=make_stream())


@pytest.mark.parametrize(
    "kind",
    [
        lambda: C.ContinualEvaluation(),
        lambda: C.AnytimeEvaluation(every_n_samples=4),
        lambda: C.ProtocolGuard(),
        lambda: C.FineTuning(),
    ],
    ids=["evaluation", "anytime", "guard", "method"],
)
def test_the_same_callback_twice_is_named(kind):
    with pytest.raises((ValueError, RuntimeError), match=rf"(more than one|have) .*{type(kind()).__name__}"):
        make_trainer(callbacks=[kind(), kind()]).fit(TinyModule(), datamodule=make_stream())


@pytest.mark.parametrize(
    ("argument", "workers"), [("train_transform", 0), ("train_transform", 1), ("eval_transform", 0)]
)
def test_a_transform_that_gives_nothing(argument, workers):
    def forgets(image: Any) -> None:
        image.float()

    with pytest.raises(
        ValueError, match=rf"`{argument}` gave None for sample \d+ of the (train|test) split; expected the"
    ):
        make_trainer().fit(TinyModule(), datamodule=make_stream(**{argument: forgets}, num_workers=workers))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("a/b.csv", r"the text 'a/b.csv'; expected .* `TableScenario\(StreamTable.from_csv\('a/b.csv'\)\)`"),
        (Path("stream.parquet"), r"the path 'stream.parquet'; expected .*StreamTable.from_parquet\('stream.parquet'\)"),
        ([[0, 1]], "a list; expected a StreamTable"),
        (D.StreamTable, "the class StreamTable; expected a StreamTable"),
    ],
)  # fmt: skip
def test_what_is_no_table(table, said):
    with pytest.raises(ValueError, match=f"^`table` is {said}"):
        D.TableScenario(table)


def test_a_source_and_a_scenario_of_ones_own_are_taken():
    class Own(D.ClassIncremental):
        pass

    assert D.ContinualDataModule(make_source(), Own(num_tasks=3)).info.num_tasks == 3
