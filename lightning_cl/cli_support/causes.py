"""What an exception tells whoever typed the command, if it was written for them; others keep their traceback."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningCLI

from lightning_cl.callbacks.atomic_checkpoint_io import CheckpointWriteError
from lightning_cl.cli_support.catalogue import PACKAGE

_WRITTEN_FOR_USERS = (ValueError, FileNotFoundError, ImportError, FloatingPointError, CheckpointWriteError)


def own_message(error: BaseException | None) -> str | None:
    """What lightning_cl, or Lightning about the Trainer's arguments, said to whoever typed the configuration.

    The parser wraps what a constructor raises, so the causes are searched too. ``None``: nothing was said to them.
    """
    while error is not None:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        within = bool(codes) and PACKAGE in Path(codes[-1].co_filename).parents
        of_trainer = isinstance(error, ValueError) and LightningCLI._instantiate_trainer.__code__ in codes
        if (
            isinstance(error, MisconfigurationException)
            or of_trainer
            or (within and isinstance(error, _WRITTEN_FOR_USERS))
        ):
            return str(error)
        if _is_missing_key(error):
            return (
                f"W&B has no API key and cannot ask for one here ({error}). Log in with `wandb login`, or log offline: "
                "`WANDB_MODE=offline` in the environment, or `WandbLogger(offline=True)` (`--trainer.logger.offline "
                "true`); `wandb sync` uploads an offline run later."
            )
        error = error.__cause__ or error.__context__
    return None


def _is_missing_key(error: BaseException) -> bool:
    """Whether W&B is asked to log online by somebody who is not logged in; its other errors speak for themselves."""
    return type(error).__module__.partition(".")[0] == "wandb" and re.search("api.key", str(error), re.I) is not None
