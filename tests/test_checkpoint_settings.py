"""The command takes its settings from the configuration alone, whatever a checkpoint says about hyperparameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_cl.cli.command import read

pytestmark = pytest.mark.filterwarnings("ignore")


def config_with(checkpoint: Path | None) -> dict[str, Any]:
    given = [] if checkpoint is None else ["--ckpt_path", str(checkpoint)]
    return read(["fit", "--config", "digits_finetune", *given], True)[1]


@pytest.mark.parametrize(
    "parameters",
    [
        {"lr": 123.0},
        {"_class_path": "of_a_stranger.Model"},
        {"_class_path": "lightning_cl.models.ImageClassifier", "model_name": "vit_of_a_stranger"},
        {"_instantiator": "of_a_stranger.make", "no_such_argument": 1},
    ],
    ids=lambda parameters: ",".join(parameters),
)
def test_hyperparameters_are_no_settings(tmp_path, monkeypatch, parameters):
    (tmp_path / "of_a_stranger.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nModel = make = dict\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": parameters}, path)
    expected = config_with(None)
    assert config_with(path) == {**expected, "ckpt_path": str(path)}
    assert not (tmp_path / "imported").exists()
