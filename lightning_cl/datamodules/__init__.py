"""Sources (which images) x scenarios (how they arrive) = one streaming LightningDataModule."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_cl.datamodules.collate import PadTokens, as_lists
    from lightning_cl.datamodules.datamodule import ContinualDataModule
    from lightning_cl.datamodules.injections import injected, injection_steps
    from lightning_cl.datamodules.scenarios.base import Scenario
    from lightning_cl.datamodules.scenarios.blurry import BlurryReport
    from lightning_cl.datamodules.scenarios.blurry_file_lists import BlurryFileLists
    from lightning_cl.datamodules.scenarios.class_incremental import ClassIncremental
    from lightning_cl.datamodules.scenarios.cumulative import Cumulative
    from lightning_cl.datamodules.scenarios.domain_incremental import DomainIncremental
    from lightning_cl.datamodules.scenarios.few_shot import FewShot
    from lightning_cl.datamodules.scenarios.forget import Forget
    from lightning_cl.datamodules.scenarios.generalized_cil import GeneralizedCIL
    from lightning_cl.datamodules.scenarios.hle import HLE
    from lightning_cl.datamodules.scenarios.i_blurry import IBlurry
    from lightning_cl.datamodules.scenarios.instance_test import InstanceTest
    from lightning_cl.datamodules.scenarios.joint import Joint
    from lightning_cl.datamodules.scenarios.multi_label import MultiLabelIncremental
    from lightning_cl.datamodules.scenarios.orders import class_order
    from lightning_cl.datamodules.scenarios.power_law import PowerLaw
    from lightning_cl.datamodules.scenarios.repetition import Repetition
    from lightning_cl.datamodules.scenarios.sample_incremental import SampleIncremental
    from lightning_cl.datamodules.scenarios.si_blurry import SiBlurry
    from lightning_cl.datamodules.scenarios.staged_mixture import StagedMixture
    from lightning_cl.datamodules.scenarios.support_sets import SupportSets
    from lightning_cl.datamodules.scenarios.table import TableScenario
    from lightning_cl.datamodules.scenarios.unlabelled_domains import UnlabelledDomains
    from lightning_cl.datamodules.sources.arrays import ArraySource
    from lightning_cl.datamodules.sources.base import Source
    from lightning_cl.datamodules.sources.boxes import BoxSource
    from lightning_cl.datamodules.sources.class_subset import ClassSubset
    from lightning_cl.datamodules.sources.corrupted import Corrupted
    from lightning_cl.datamodules.sources.cub200 import CUB200
    from lightning_cl.datamodules.sources.digits import Digits
    from lightning_cl.datamodules.sources.domain_net import DomainNet
    from lightning_cl.datamodules.sources.hugging_face import HuggingFaceSource
    from lightning_cl.datamodules.sources.image_folder import ImageFolder
    from lightning_cl.datamodules.sources.imagenet_r import ImageNetR
    from lightning_cl.datamodules.sources.instances import Instances
    from lightning_cl.datamodules.sources.iterable import IterableSource
    from lightning_cl.datamodules.sources.label_levels import LabelLevels
    from lightning_cl.datamodules.sources.litdata_source import LitDataSource
    from lightning_cl.datamodules.sources.mini_imagenet import MiniImageNet
    from lightning_cl.datamodules.sources.multi_label import MultiLabelSource
    from lightning_cl.datamodules.sources.overwritten_labels import OverwrittenLabels
    from lightning_cl.datamodules.sources.permuted_labels import PermutedLabels
    from lightning_cl.datamodules.sources.selected_samples import SelectedSamples
    from lightning_cl.datamodules.sources.sequences import BinarySequences, DriftStream
    from lightning_cl.datamodules.sources.text import TextSource
    from lightning_cl.datamodules.sources.tiny_imagenet import TinyImageNet
    from lightning_cl.datamodules.sources.torchvision_sources import (
        CIFAR10,
        CIFAR100,
        MNIST,
        FashionMNIST,
        Omniglot,
        TorchvisionSource,
    )
    from lightning_cl.datamodules.sources.wrapped import DataModuleSource, DatasetSource
    from lightning_cl.datamodules.table import StreamTable
    from lightning_cl.datamodules.task import StreamInfo, Task

# Found at the point of use, so that `import lightning_cl.datamodules` imports neither torchvision nor scikit-learn.
_LAZY = {
    "ArraySource": "sources.arrays",
    "BinarySequences": "sources.sequences",
    "BlurryFileLists": "scenarios.blurry_file_lists",
    "BlurryReport": "scenarios.blurry",
    "BoxSource": "sources.boxes",
    "CIFAR10": "sources.torchvision_sources",
    "CIFAR100": "sources.torchvision_sources",
    "CUB200": "sources.cub200",
    "ClassIncremental": "scenarios.class_incremental",
    "ClassSubset": "sources.class_subset",
    "ContinualDataModule": "datamodule",
    "Corrupted": "sources.corrupted",
    "Cumulative": "scenarios.cumulative",
    "DataModuleSource": "sources.wrapped",
    "DatasetSource": "sources.wrapped",
    "Digits": "sources.digits",
    "DomainIncremental": "scenarios.domain_incremental",
    "DomainNet": "sources.domain_net",
    "DriftStream": "sources.sequences",
    "FashionMNIST": "sources.torchvision_sources",
    "FewShot": "scenarios.few_shot",
    "Forget": "scenarios.forget",
    "GeneralizedCIL": "scenarios.generalized_cil",
    "HLE": "scenarios.hle",
    "HuggingFaceSource": "sources.hugging_face",
    "IBlurry": "scenarios.i_blurry",
    "ImageFolder": "sources.image_folder",
    "ImageNetR": "sources.imagenet_r",
    "IterableSource": "sources.iterable",
    "InstanceTest": "scenarios.instance_test",
    "Instances": "sources.instances",
    "Joint": "scenarios.joint",
    "LabelLevels": "sources.label_levels",
    "LitDataSource": "sources.litdata_source",
    "MNIST": "sources.torchvision_sources",
    "MiniImageNet": "sources.mini_imagenet",
    "MultiLabelIncremental": "scenarios.multi_label",
    "MultiLabelSource": "sources.multi_label",
    "Omniglot": "sources.torchvision_sources",
    "OverwrittenLabels": "sources.overwritten_labels",
    "PadTokens": "collate",
    "PermutedLabels": "sources.permuted_labels",
    "PowerLaw": "scenarios.power_law",
    "Repetition": "scenarios.repetition",
    "SampleIncremental": "scenarios.sample_incremental",
    "Scenario": "scenarios.base",
    "SelectedSamples": "sources.selected_samples",
    "SiBlurry": "scenarios.si_blurry",
    "Source": "sources.base",
    "StagedMixture": "scenarios.staged_mixture",
    "StreamInfo": "task",
    "StreamTable": "table",
    "SupportSets": "scenarios.support_sets",
    "TableScenario": "scenarios.table",
    "Task": "task",
    "TextSource": "sources.text",
    "TinyImageNet": "sources.tiny_imagenet",
    "TorchvisionSource": "sources.torchvision_sources",
    "UnlabelledDomains": "scenarios.unlabelled_domains",
    "as_lists": "collate",
    "class_order": "scenarios.orders",
    "injected": "injections",
    "injection_steps": "injections",
}
__all__ = [
    "CIFAR10",
    "CIFAR100",
    "CUB200",
    "HLE",
    "MNIST",
    "ArraySource",
    "BinarySequences",
    "BlurryFileLists",
    "BlurryReport",
    "BoxSource",
    "ClassIncremental",
    "ClassSubset",
    "ContinualDataModule",
    "Corrupted",
    "Cumulative",
    "DataModuleSource",
    "DatasetSource",
    "Digits",
    "DomainIncremental",
    "DomainNet",
    "DriftStream",
    "FashionMNIST",
    "FewShot",
    "Forget",
    "GeneralizedCIL",
    "HuggingFaceSource",
    "IBlurry",
    "ImageFolder",
    "ImageNetR",
    "InstanceTest",
    "Instances",
    "IterableSource",
    "Joint",
    "LabelLevels",
    "LitDataSource",
    "MiniImageNet",
    "MultiLabelIncremental",
    "MultiLabelSource",
    "Omniglot",
    "OverwrittenLabels",
    "PadTokens",
    "PermutedLabels",
    "PowerLaw",
    "Repetition",
    "SampleIncremental",
    "Scenario",
    "SelectedSamples",
    "SiBlurry",
    "Source",
    "StagedMixture",
    "StreamInfo",
    "StreamTable",
    "SupportSets",
    "TableScenario",
    "Task",
    "TextSource",
    "TinyImageNet",
    "TorchvisionSource",
    "UnlabelledDomains",
    "as_lists",
    "class_order",
    "injected",
    "injection_steps",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
