"""One run of a comparison: its configuration, its folder, whether it is finished, and the words that run it."""

from __future__ import annotations

import copy
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl import __version__
from lightning_cl.callbacks.atomic_checkpoint_io import is_complete
from lightning_cl.cli_support.checking import newest_version
from lightning_cl.cli_support.command import run
from lightning_cl.cli_support.configs import UsageError
from lightning_cl.cli_support.continuing import newest_first
from lightning_cl.metrics._files import to_json
from lightning_cl.metrics.report import FILE_NAME

CONFIG, RESULT, OUTPUT = "run.yaml", "result.json", "output.txt"
#: Callbacks that every run of a comparison has: results, checkpoints to continue from, costs.
NEEDED = ("ContinualEvaluation", "ContinualCheckpoint", "RunCost")
#: Settings that change nothing but what is seen on the screen.
_SHOWN = ("enable_progress_bar", "enable_model_summary")

Config = dict[str, Any]


def short_name(entry: Any) -> str:
    """Class name of an entry of a configuration."""
    path = entry if isinstance(entry, str) else entry.get("class_path", "")
    return str(path).rsplit(".", 1)[-1]


@dataclass(frozen=True)
class PlannedRun:
    """A method with a seed.

    Attributes:
        method: Its name in tables.
        seed: Of ``seed_everything`` and the stream.
        folder: Holds everything of the run.
        config: What is run.
    """

    method: str
    seed: int
    folder: Path
    config: Config

    @classmethod
    def of(cls, method: str, seed: int, folder: Path, config: Config) -> PlannedRun:
        """With the seed, the needed callbacks, and a logger that keeps the run in ``folder/method/seed<k>``."""
        config = copy.deepcopy(config)
        config["seed_everything"] = seed
        config["data"]["seed"] = seed
        trainer = config["trainer"]
        settings = {"save_dir": str(folder / method), "name": f"seed{seed}"}
        trainer["logger"] = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": settings}
        given = trainer.get("callbacks") or []
        callbacks = [*given] if isinstance(given, list) else [given]
        missing = [name for name in NEEDED if name not in map(short_name, callbacks)]
        trainer["callbacks"] = callbacks + [{"class_path": f"lightning_cl.callbacks.{name}"} for name in missing]
        return cls(method, seed, folder / method / f"seed{seed}", config)

    def describes(self, folder: Path) -> bool:
        """What lies in ``folder`` is this run: same configuration, same version of the package."""
        path = folder / CONFIG
        if not path.is_file():
            return False
        try:
            known = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            return False
        same_version = f"lightning_cl {__version__}\n" in path.read_text(encoding="utf-8")
        return same_version and isinstance(known, dict) and _essence(known) == _essence(self.config)

    def finished(self) -> Path | None:
        """Folder with the report, if this run has come to its end before."""
        mark = self.folder / RESULT
        if not self.describes(self.folder) or not mark.is_file():
            return None
        found = self.folder / str(json.loads(mark.read_text(encoding="utf-8"))["folder"])
        return found if (found / FILE_NAME).is_file() else None

    def begun(self) -> bool:
        """There is a checkpoint of this run to go on from."""
        saved = newest_first(list(self.folder.glob("*/checkpoints")))
        return self.describes(self.folder) and any(is_complete(path) for path in saved)

    def prepare(self) -> list[str]:
        """Make the folder, keep aside what another configuration left in it, and give the words that run this."""
        go_on = self.begun()
        if self.folder.exists() and not self.describes(self.folder):
            _keep(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / CONFIG
        head = f"# {self.method}, seed {self.seed}, lightning_cl {__version__}\n# lightning-cl fit --config {path}\n"
        path.write_text(head + yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        return ["fit", "--config", str(path), *(["--ckpt_path", "last"] if go_on else [])]

    def finish(self) -> Path:
        """Mark the newest report as the result.

        Raises:
            UsageError: If there is none.
        """
        found = newest_version(self.folder)
        if not (found / FILE_NAME).is_file():
            raise UsageError(f"the run left no report in {found}.")
        (self.folder / RESULT).write_text(to_json({"folder": found.name}), encoding="utf-8")
        return found


def _essence(config: Config) -> Config:
    trainer = {name: value for name, value in config["trainer"].items() if name not in _SHOWN}
    return {**config, "trainer": trainer}


def _keep(folder: Path) -> None:
    number = 1
    while (kept := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    os.replace(folder, kept)


def fit(words: list[str], debug: bool) -> int:
    """A run, in a process of its own; further processes of a distributed run read the same words."""
    sys.argv[1:] = words
    return run(words, [words[2]], debug)
