"""A `LightningCLI` in a script of your own takes a stream as data and methods as callbacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from documented import few_digits
from lightning.pytorch.cli import LightningCLI

from lightning_cl.callbacks import ContinualEvaluation
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.models import ImageClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = """
seed_everything: 1
model: {num_classes: 10}
data:
  source: {class_path: lightning_cl.datamodules.Digits}
  scenario: {class_path: lightning_cl.datamodules.ClassIncremental, init_args: {num_tasks: 2}}
  batch_size: 64
trainer:
  max_epochs: -1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  limit_train_batches: 1
  num_sanity_val_steps: 0
  callbacks:
    - {class_path: lightning_cl.callbacks.L2SP, init_args: {strength: 3.0}}
    - {class_path: lightning_cl.callbacks.ContinualEvaluation, init_args: {report: false}}
"""


class OwnCLI(LightningCLI):
    """As in many scripts: a subclass that links and adds arguments."""

    def add_arguments_to_parser(self, parser: object) -> None:
        parser.add_argument("--note", default="none")  # type: ignore[attr-defined]


def own_cli(*words: str) -> LightningCLI:
    return OwnCLI(ImageClassifier, ContinualDataModule, args=list(words), save_config_callback=None)


def test_a_cli_of_your_own_runs_a_stream_and_prints_a_config_that_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script.py"])
    few_digits(monkeypatch)
    Path("mine.yaml").write_text(CONFIG)

    def printed(*configs: str) -> dict:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            own_cli("fit", *(word for config in configs for word in ("--config", config)), "--print_config")
        return yaml.safe_load(capsys.readouterr().out)

    first = printed("mine.yaml")
    assert first["trainer"]["callbacks"][0]["init_args"]["strength"] == 3.0
    assert first["data"]["scenario"]["init_args"]["num_tasks"] == 2
    Path("printed.yaml").write_text(yaml.safe_dump(first))
    assert printed("printed.yaml") == first

    cli = own_cli("fit", "--config", "printed.yaml", "--note", "mine")
    (evaluation,) = (c for c in cli.trainer.callbacks if isinstance(c, ContinualEvaluation))
    assert torch.equal(evaluation.total.sum(1) > 0, torch.tensor([True, True]))
    assert cli.trainer.global_step == 2
    assert cli.config.fit.note == "mine"
    assert "Average accuracy" in capsys.readouterr().out
