"""Names of Lightning, from the one of its two packages that is in use: ``lightning.pytorch``, ``pytorch_lightning``.

They hold the same code, but the classes of one are strangers to the other. The one that the program imported before
lightning_cl is taken; ``lightning``, if it imported both or none. The environment variable ``LIGHTNING_CL_NAMESPACE``
(``lightning`` or ``pytorch_lightning``) decides otherwise. All other files of the package import Lightning from here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

#: Name of the environment variable.
SETTING = "LIGHTNING_CL_NAMESPACE"
#: Names of the Trainer's package and of Fabric's, by choice.
_PACKAGES = {
    "lightning": ("lightning.pytorch", "lightning.fabric"),
    "pytorch_lightning": ("pytorch_lightning", "lightning_fabric"),
}


def chosen_package(environment: Mapping[str, str], modules: Container[str]) -> str:
    """``"lightning"`` or ``"pytorch_lightning"``.

    Args:
        environment: The environment variables.
        modules: Names of the modules that the program imported so far.

    Raises:
        ValueError: If the setting is neither.
    """
    chosen = environment.get(SETTING)
    if chosen is None:
        only = "pytorch_lightning" in modules and "lightning.pytorch" not in modules
        return "pytorch_lightning" if only else "lightning"
    if chosen not in _PACKAGES:
        raise ValueError(
            f'the environment variable {SETTING} is {chosen!r}; give "lightning" or "pytorch_lightning", or leave it '
            "unset."
        )
    return chosen


#: The Trainer's package, ``"lightning.pytorch"`` or ``"pytorch_lightning"``, and the part of Fabric that it uses.
PYTORCH, FABRIC = _PACKAGES[chosen_package(os.environ, sys.modules)]


def refuse_other_namespace(given: object) -> None:
    """Refuse a Trainer or a module of the package that is not in use.

    Raises:
        ValueError: If ``given`` is one.
    """
    (other,) = {packages[0] for packages in _PACKAGES.values()} - {PYTORCH}
    bases = {kind.__module__.partition(f"{other}.")[:2] for kind in type(given).__mro__}
    if ("", f"{other}.") in bases:
        raise ValueError(
            f"{type(given).__name__} is of `{other}`, but lightning_cl uses `{PYTORCH}`, and the two cannot be mixed; "
            f"import only one of them, before lightning_cl, or set the environment variable "
            f"`{SETTING}={other.partition('.')[0]}`."
        )


if TYPE_CHECKING:
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.fabric.utilities import move_data_to_device
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.fabric.utilities.seed import reset_seed, seed_everything
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import (
        BaseFinetuning,
        Checkpoint,
        EarlyStopping,
        GradientAccumulationScheduler,
        ModelCheckpoint,
        ProgressBar,
        RichProgressBar,
        TQDMProgressBar,
    )
    from lightning.pytorch.cli import (
        ArgsType,
        LightningArgumentParser,
        LightningCLI,
        LRSchedulerCallable,
        OptimizerCallable,
        ReduceLROnPlateau,
        SaveConfigCallback,
    )
    from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
    from lightning.pytorch.plugins.precision import DoublePrecision
    from lightning.pytorch.strategies import DDPStrategy, Strategy
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
    from lightning.pytorch.trainer.states import RunningStage
    from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from lightning.pytorch.utilities.model_helpers import is_overridden
    from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

__all__ = [
    "FABRIC",
    "PYTORCH",
    "SETTING",
    "ArgsType",
    "BaseFinetuning",
    "Callback",
    "Checkpoint",
    "DDPStrategy",
    "DoublePrecision",
    "EarlyStopping",
    "GradientAccumulationScheduler",
    "LRSchedulerCallable",
    "LightningArgumentParser",
    "LightningCLI",
    "LightningDataModule",
    "LightningModule",
    "Logger",
    "MisconfigurationException",
    "ModelCheckpoint",
    "OptimizerCallable",
    "ProgressBar",
    "ReduceLROnPlateau",
    "RichProgressBar",
    "RunningStage",
    "SIGTERMException",
    "SaveConfigCallback",
    "Strategy",
    "TQDMProgressBar",
    "TensorBoardLogger",
    "TorchCheckpointIO",
    "Trainer",
    "WandbLogger",
    "_MultiProcessingLauncher",
    "is_overridden",
    "is_param_in_hook_signature",
    "move_data_to_device",
    "rank_zero_info",
    "rank_zero_only",
    "rank_zero_warn",
    "refuse_other_namespace",
    "reset_seed",
    "seed_everything",
]

#: Where the names are, from the package itself on; what reads command lines comes last, for it takes long to import.
_PLACES = (
    PYTORCH,
    f"{PYTORCH}.callbacks",
    f"{PYTORCH}.loggers",
    f"{PYTORCH}.plugins.precision",
    f"{PYTORCH}.strategies",
    f"{PYTORCH}.strategies.launchers",
    f"{PYTORCH}.trainer.states",
    f"{PYTORCH}.utilities",
    f"{PYTORCH}.utilities.exceptions",
    f"{PYTORCH}.utilities.model_helpers",
    f"{PYTORCH}.utilities.signature_utils",
    f"{FABRIC}.plugins.io.torch_io",
    f"{FABRIC}.utilities",
    f"{FABRIC}.utilities.exceptions",
    f"{FABRIC}.utilities.seed",
    f"{PYTORCH}.cli",
)


def __getattr__(name: str) -> Any:
    """One of Lightning's names, from the package in use."""
    if name in __all__:
        for place in _PLACES:
            module = import_module(place)
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
