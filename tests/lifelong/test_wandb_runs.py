"""One W&B run for each call, in the group of the model, offline; the lineage is an artifact of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_cl.callbacks import PrototypeClassifier
from lightning_cl.lifelong import create
from lightning_cl.lifelong.wandb_runs import wandb_logger


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_calls_are_two_runs_of_one_group(months, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged = []

    def noted(self, artifact, *args, **kwargs):
        logged.append((self.group, self.job_type, self.name, self.summary.get("version"), artifact))

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log_artifact", noted)
    model = create(tmp_path / "digits", methods=[PrototypeClassifier()])
    for month in months[:2]:
        model.learn(month, loggers=[wandb_logger(model.folder, "months")])
    lineage = [entry for entry in logged if entry[-1].type == "lineage"]
    assert [entry[:4] for entry in lineage] == [("digits", "learn", "digits-1", 1), ("digits", "learn", "digits-2", 2)]
    artifact = lineage[1][-1]
    assert artifact.name.startswith("digits-lineage")
    assert artifact.metadata["parent"] == 1
    assert artifact.metadata["data"] == str(months[1])
    assert {"version.json", "continual_report.json"} <= set(artifact.manifest.entries)
    assert len(list(Path(tmp_path, "digits", "wandb").glob("offline-run-*"))) == 2
    assert wandb.run is None
