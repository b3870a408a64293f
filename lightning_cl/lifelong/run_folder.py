"""Read the configuration and the newest checkpoint of a run that the command or ``ContinualCheckpoint`` left."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.checkpoint_file import is_intact, read_checkpoint
from lightning_cl.lifelong.configuration import Configuration, Part, imported
from lightning_cl.lifelong.preprocessing import Preprocessing

CONFIG = "config.yaml"


def is_run(folder: Path) -> bool:
    """Whether a run's configuration is in the folder, or in its newest ``version_*``."""
    return _config(folder) is not None


def read_run(folder: Path) -> tuple[Configuration, dict[str, Any]]:
    """What a run was made of, and its newest intact checkpoint.

    Raises:
        ValueError: If there is no checkpoint, or no class of the configuration can be found.
    """
    config = _config(folder)
    assert config is not None
    saved = [path for path in config.parent.glob("**/*.ckpt") if is_intact(path)]
    if not saved:
        raise ValueError(
            f"{config.parent} has no checkpoint, so there is nothing to load; run it with `ContinualCheckpoint` among "
            "the callbacks."
        )
    newest = max(saved, key=lambda path: path.stat().st_mtime_ns)
    try:
        configuration = configuration_of_run(yaml.safe_load(config.read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{config} is no configuration of a run ({type(error).__name__}: {error}); give the folder that "
            "`lightning-cl fit` or `lightning-cl learn` made."
        ) from error
    return configuration, read_checkpoint(newest)


def _config(folder: Path) -> Path | None:
    found = sorted(folder.glob(f"version_*/{CONFIG}"), key=lambda path: path.stat().st_mtime_ns)
    return next((path for path in (folder / CONFIG, *reversed(found)) if path.is_file()), None)


def configuration_of_run(config: dict[str, Any]) -> Configuration:
    """The model, its methods and the preprocessing of a run's ``config.yaml``."""
    model, data = config["model"], config["data"]
    methods = [part for part in config["trainer"].get("callbacks") or [] if _is_method(part)]
    part: Part = {"class_path": model["class_path"], "init_args": dict(model.get("init_args") or {})}
    epochs, batch_size = data.get("epochs_per_task", 1), data.get("batch_size", 32)
    configuration = Configuration(
        part,
        [{"class_path": m["class_path"], "init_args": dict(m.get("init_args") or {})} for m in methods],
        Preprocessing(1),
        batch_size=batch_size if isinstance(batch_size, int) else batch_size[-1],
        epochs=epochs if isinstance(epochs, int) else epochs[-1],
        seed=int(data.get("seed") or 0),
    )
    classes = int(part["init_args"].get("num_classes") or 1)
    configuration.preprocessing = _preprocessing(configuration.build_module(classes, fresh=False), data["source"])
    return configuration


def _is_method(part: Part) -> bool:
    made = imported(part["class_path"])
    return isinstance(made, type) and issubclass(made, ContinualMethod)


def _preprocessing(module: Any, source: Part) -> Preprocessing:
    """As the run's source made images; of a source that says nothing, as the network was trained."""
    cls, options = imported(source["class_path"]), dict(source.get("init_args") or {})
    taken = inspect.signature(cls).parameters
    if not {"image_size", "normalize"} <= set(taken):
        return Preprocessing.of(module)
    made = cls(**options)
    found = Preprocessing.of(module, made.image_size)
    native = getattr(made, "native_size", None) is not None
    mean, std = (tuple(getattr(made, name) or ()) for name in ("mean", "std"))
    crop = 1.0 if native else 224 / 256
    return Preprocessing(found.image_size, found.channels, crop, mean, std)
