from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

import lightning_cl.datamodules as datamodules
from lightning_cl.datamodules import Scenario, Source


def test_names_agree():
    tree = ast.parse(Path(datamodules.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}  # what mypy and editors see
    lazy = {name: f"lightning_cl.datamodules.{module}" for name, module in datamodules._LAZY.items()}
    assert typed == lazy
    assert sorted(datamodules.__all__) == sorted(lazy)
    for module in set(lazy.values()):
        assert find_spec(module), module


def test_every_name_can_be_imported():
    for name in datamodules.__all__:
        assert getattr(datamodules, name).__name__ == name
        assert name in dir(datamodules)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = datamodules.Nothing


def test_heavy_packages_are_imported_at_the_point_of_use():
    code = """
import sys
import lightning_cl.datamodules as d
for name in d.__all__:
    if name not in ("ContinualDataModule",):  # Lightning itself imports what it likes
        getattr(d, name)
d.Digits(), d.CIFAR100("data"), d.ImageFolder("data"), d.ClassIncremental(2)
heavy = {"torchvision.datasets", "sklearn", "pyarrow", "lightning", "timm"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("base", "name", "arguments"),
    [
        (Source, "ArraySource", {"train": "data.npz", "image_size": 32, "mean": [0.5], "std": [0.5]}),
        (Source, "CIFAR100", {"root": "data", "image_size": 224, "normalize": False, "augment": "crop"}),
        (Source, "Digits", {"test_fraction": 0.3}),
        (Source, "DomainNet", {"root": "data", "domains": ["real", "sketch"]}),
        (Source, "ImageFolder", {"root": "data", "test_fraction": 0.2}),
        (Source, "ImageNetR", {"root": "data", "train_list": "train.yaml", "test_list": "test.yaml"}),
        (Source, "Omniglot", {"root": "data", "part": "background"}),
        (Scenario, "ClassIncremental", {"classes_per_task": [4, 3, 3], "class_order": "coda_prompt", "seed": 1}),
        (Scenario, "ClassIncremental", {"num_tasks": 2, "class_order": [1, 0], "remainder": "last"}),
        (Scenario, "DomainIncremental", {"domain_order": [1, 0]}),
        (Scenario, "Joint", {}),
        (Scenario, "SampleIncremental", {"num_tasks": 3, "order": "stream"}),
        (Source, "TextSource", {"data": "texts", "tokenizer": "folder", "max_length": 32, "targets": "tokens"}),
        (Source, "TinyImageNet", {"root": "data", "image_size": 224, "augment": "flip"}),
        (Scenario, "SiBlurry", {"num_tasks": 3, "blur_select": "dataset_order", "keep_all_classes": False, "seed": 1}),
        (Scenario, "IBlurry", {"disjoint_class_pct": 0, "blurry_sample_pct": 30, "class_order": [1, 0]}),
        (Scenario, "GeneralizedCIL", {"num_phases": 3, "weights": [1.0, 2.0], "reuse": False}),
        (Scenario, "GeneralizedCIL", {"weights": "longtail", "decay": 0.97}),
        (Scenario, "Repetition", {"num_tasks": 9, "samples_per_class": 5, "second_half": "other"}),
        (
            Scenario,
            "PowerLaw",
            {
                "tasks": {"class_path": "lightning_cl.datamodules.ClassIncremental", "init_args": {"num_tasks": 2}},
                "decay": "exponential",
            },
        ),
        (Scenario, "BlurryFileLists", {"lists": "lists/task{task}.json"}),
        (Scenario, "BlurryFileLists", {"lists": ["a.json", "b.json"]}),
    ],
)
def test_yaml_can_build_them(base, name, arguments):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base)
    given = {"class_path": f"lightning_cl.datamodules.{name}", "init_args": arguments}
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # renamed in jsonargparse 4.49
    made = build(parser.parse_object({"it": given})).it
    assert type(made) is getattr(datamodules, name)
