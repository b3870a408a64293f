"""What loggers are told of a run, read back from the files that they wrote: W&B (offline), TensorBoard, CSV."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from callbacks.anytime_runs import NUM_TASKS, SIZES, fit, make_stream
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from stopping import wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lightning_cl.callbacks import (
    AnytimeEvaluation,
    ContinualCheckpoint,
    ContinualEvaluation,
    ExperienceReplay,
    ProtocolGuard,
)
from lightning_cl.callbacks.evaluation import stream_logging as log
from lightning_cl.cli import main
from lightning_cl.cli.user_errors import own_message
from lightning_cl.metrics import read_report
from lightning_cl.reports.plots import matrix_image

pytestmark = pytest.mark.filterwarnings("ignore")
ENDS = np.cumsum(SIZES).tolist()


# ---------------------------------------------------------------------- reading W&B's file, from its own description


def records(folder: Path) -> Iterator[Any]:
    """The records of the one offline run in a folder: LevelDB's log format, a protobuf message in each record."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.rglob("*.wandb")
    data, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        message += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole, or its last part
            record = Record()
            record.ParseFromString(message)
            message = b""
            yield record


def plain(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


class WandbRun:
    """What is in a run's file."""

    def __init__(self, folder: Path) -> None:
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.artifacts: list[Any] = []
        # W&B's own process may still be writing when `finish` is over
        wait_for(lambda: any(record.WhichOneof("record_type") == "exit" for record in records(folder)))
        for record in records(folder):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.history.append(plain(record.history.item))
            elif kind == "config":
                self.config |= plain(record.config.update)
            elif kind == "summary":
                self.summary |= plain(record.summary.update)
            elif kind == "metric":
                self.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "run":
                self.id = record.run.run_id

    def rows(self, key: str) -> list[dict[str, Any]]:
        return [row for row in self.history if any(name == key or name.startswith(f"{key}.") for name in row)]


def wandb_logger(folder: Path, **options: Any) -> WandbLogger:
    from wandb.sdk.data_types import _private

    os.makedirs(_private.MEDIA_TMP.name, exist_ok=True)  # a forked test may have cleared it up for all
    return WandbLogger(save_dir=folder, project="streams", mode="offline", **options)


class Logged:
    """One run that all loggers were told of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        loggers = [wandb_logger(folder, id="run1"), TensorBoardLogger(folder, "tb"), CSVLogger(folder, "csv")]
        self.evaluation = ContinualEvaluation(print_table=False)
        self.stream = make_stream()
        method = ExperienceReplay(memory_size=6, batch_size=4)
        guard = ProtocolGuard(print_card=False, probe=4, duplicates=0)
        callbacks = [method, AnytimeEvaluation(7), self.evaluation, guard]
        fit(*callbacks, stream=self.stream, logger=loggers, log_every_n_steps=2)
        loggers[0].experiment.finish()
        self.wandb = WandbRun(folder)
        self.report = read_report(folder / "streams" / "run1")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


# ---------------------------------------------------------------------- W&B


def test_one_run_with_an_axis_for_everything(logged):
    axes = logged.wandb.axes
    assert axes["*"] == "stream/samples_seen"
    after_task = {name for name in axes if name.startswith("after_task/")}
    assert {axes[name] for name in after_task} == {"stream/task"}
    written = {name for row in logged.wandb.history for name in row if name.startswith("after_task/")}
    assert {name.partition(".")[0] for name in written} <= after_task  # or the star would give them another axis
    seen = [row["stream/samples_seen"] for row in logged.wandb.history]
    assert seen == sorted(seen)  # in every row: what is drawn over it has a place
    assert seen[-1] == sum(SIZES)
    losses = logged.wandb.rows("train_loss")
    assert [row["stream/samples_seen"] for row in losses] == [10, 20, 30, 39, 49, 59, 66]
    curve = logged.report.anytime["curve"]
    periodic = [n for n, due in zip(curve["samples_seen"], curve["periodic"], strict=True) if due]
    assert [row["stream/samples_seen"] for row in logged.wandb.rows("anytime/accuracy")] == periodic


def test_boundaries_and_what_is_known_after_each_task(logged):
    starts = logged.wandb.rows("stream/seen_classes")
    assert [row["stream/task"] for row in starts] == [0, 1, 2]
    assert [row["stream/samples_seen"] for row in starts] == [0, *ENDS[:-1]]
    assert [row["stream/seen_classes"] for row in starts] == [len(t.seen_classes) for t in logged.stream.tasks]
    ends = logged.wandb.rows("after_task/class_il/average_accuracy")
    assert [row["stream/task"] for row in ends] == [0, 1, 2]
    assert [row["stream/samples_seen"] for row in ends] == ENDS
    means = log_means(logged)
    assert [row["after_task/class_il/average_accuracy"] for row in ends] == pytest.approx(means)
    assert ends[-1]["after_task/class_il/forgetting"] == pytest.approx(logged.report.metrics["class_il/forgetting"])


def log_means(logged: Logged) -> list[float]:
    counted = [t for t, size in enumerate(logged.report.sizes.tolist()) if size]
    matrix = logged.report.class_il
    return [float(matrix[t, [c for c in counted if c <= t]].mean()) for t in range(NUM_TASKS)]


def test_the_matrix_is_a_table_and_a_picture(logged):
    rows = logged.wandb.rows("after_task/accuracy_matrix_image")
    assert [row["after_task/accuracy_matrix_image._type"] for row in rows] == ["image-file"] * NUM_TASKS
    (folder,) = logged.folder.glob("wandb/offline-run-*")
    for row in rows:
        assert (folder / "files" / row["after_task/accuracy_matrix_image.path"]).stat().st_size > 1000
    table = json.loads((folder / "files" / rows[-1]["after_task/accuracy_matrix.path"]).read_text())
    assert table["columns"] == ["after_task", "task_0", "task_1", "task_2", "mean"]
    expected = logged.report.class_il
    for stage, (first, *row, mean) in enumerate(table["data"]):
        assert first == stage
        told = torch.tensor([float("nan") if v is None else v for v in row], dtype=torch.float64)
        torch.testing.assert_close(told, expected[stage], equal_nan=True)
        assert mean == pytest.approx(log_means(logged)[stage])


def test_the_configuration_says_which_stream_and_methods(logged):
    config = logged.wandb.config
    assert config["stream"]["hash"] == logged.stream.info.fingerprint
    assert config["stream"]["num_tasks"] == NUM_TASKS
    assert config["stream"]["classes_per_task"] == [list(c) for c in logged.stream.info.classes_per_task]
    assert config["methods"]["ExperienceReplay"]["memory_size"] == 6


def test_the_end_is_in_the_summary_and_the_report_an_artifact(logged):
    summary = logged.wandb.summary
    for name, value in logged.report.metrics.items():
        assert summary.get(f"final/{name}") == (None if value is None else pytest.approx(value))
    told = {name.partition(".")[2]: value for name, value in summary.items() if name.startswith("protocol.")}
    told = told or summary["protocol"]
    assert told == {check["name"]: check["result"] for check in logged.report.protocol["checks"]}
    (artifact,) = (a for a in logged.wandb.artifacts if a.type == "continual-report")
    names = {entry.path for entry in artifact.manifest.contents}
    assert names == {file.name for file in (logged.folder / "streams" / "run1").iterdir() if file.is_file()}
    assert {"continual_report.json", "accuracy_matrix.csv", "accuracy_matrix.png", "anytime_curve.png"} <= names


class _Killed(Exception):
    pass


class KillAt(Callback):
    """Ends the run like a power cut would, but for the exception."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise _Killed


def test_a_killed_run_goes_on_in_the_same_wandb_run(tmp_path):
    import wandb

    def part(folder: Path, *more: Callback, ckpt_path: Any = None) -> WandbRun:
        logger = wandb_logger(folder, id="mine", prefix="cl")
        checkpoint = ContinualCheckpoint(dirpath=tmp_path / "saved")
        evaluation = ContinualEvaluation(print_table=False, report=False)
        try:
            fit(evaluation, checkpoint, *more, logger=logger, log_every_n_steps=1, ckpt_path=ckpt_path)
        finally:
            wandb.run.finish()
        return WandbRun(folder)

    with pytest.raises(_Killed):
        part(tmp_path / "first", KillAt(7))
    first = WandbRun(tmp_path / "first")
    second = part(tmp_path / "second", ckpt_path=tmp_path / "saved" / "last.ckpt")
    assert first.id == second.id == "mine"
    assert [row["cl-stream/task"] for row in first.rows("cl-after_task/class_il/average_accuracy")] == [0]
    assert [row["cl-stream/task"] for row in second.rows("cl-after_task/class_il/average_accuracy")] == [1, 2]
    seen = [[row["cl-stream/samples_seen"] for row in run.rows("cl-train_loss")] for run in (first, second)]
    assert seen[0] == [5, 10, 15, 20, 25, 30, 35]  # a prefix changes the axes' names, too
    assert seen[1] == [30, 35, 39, *range(44, 66, 5), 66]  # from the last checkpoint, over the same places
    assert first.axes["cl-*"] == "cl-stream/samples_seen"


# ---------------------------------------------------------------------- TensorBoard, CSV, nothing


def test_tensorboard(logged):
    (folder,) = (logged.folder / "tb").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    values = [event.value for event in events.Scalars("after_task/class_il/average_accuracy")]
    assert values == pytest.approx(log_means(logged))
    assert [event.value for event in events.Scalars("stream/samples_seen")][-1] == sum(SIZES)
    final = events.Scalars("final/class_il/forgetting")[-1].value
    assert final == pytest.approx(logged.report.metrics["class_il/forgetting"])
    pictures = events.Images("after_task/accuracy_matrix")
    assert len(pictures) == NUM_TASKS
    assert (pictures[0].height, pictures[0].width) == matrix_image(logged.report.class_il).shape[:2]
    texts = {name: events.Tensors(name)[-1].tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"]}
    assert logged.report.stream_hash in texts["stream/hash/text_summary"]
    assert '"memory_size": 6' in texts["methods/text_summary"]
    assert "| batch size | pass |" in texts["protocol/text_summary"]
    plugin = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    told = plugin.session_start_info.hparams
    assert told["stream/hash"].string_value == logged.report.stream_hash
    assert told["methods/ExperienceReplay/memory_size"].number_value == 6


def test_csv(logged):
    (folder,) = (logged.folder / "csv").iterdir()
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    values = [float(value) for row in rows if (value := row["after_task/class_il/average_accuracy"])]
    assert values == pytest.approx(log_means(logged))
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["methods"]["ExperienceReplay"]["memory_size"] == 6


def test_without_a_logger_nothing_is_told_and_the_weights_are_the_same(tmp_path):
    plain_module, _ = fit(ContinualEvaluation(report=False, print_table=False), logger=False)
    logger = CSVLogger(tmp_path)
    told, _ = fit(ContinualEvaluation(report=False, print_table=False), logger=logger, log_every_n_steps=1)
    for name, value in plain_module.state_dict().items():
        assert torch.equal(value, told.state_dict()[name])


def test_evaluations_inside_the_run_alone_also_say_which_stream_it_is(tmp_path):
    logger = CSVLogger(tmp_path, "alone")
    fit(AnytimeEvaluation(20), logger=logger, log_every_n_steps=1)
    saved = yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text())
    assert saved["stream"]["hash"] == make_stream().info.fingerprint
    with (Path(logger.log_dir) / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["anytime/accuracy"]]
    assert [float(row["stream/samples_seen"]) for row in rows] == [20, 44, 64]


@pytest.mark.parametrize(("tasks", "pictures"), [(1, 1), (2, 2), (20, 20), (21, 11), (50, 17), (1000, 20)])
def test_the_number_of_pictures_is_bounded_and_the_last_task_has_one(tasks, pictures):
    due = [task for task in range(tasks) if log.matrix_is_due(task, tasks)]
    assert len(due) == pictures
    assert due[-1] == tasks - 1


# ---------------------------------------------------------------------- no key


def test_without_a_key_the_command_says_how_to_log_offline(tmp_path, monkeypatch, capsys):
    from wandb.errors import UsageError as WandbError

    def refuse(**_: Any) -> None:
        raise WandbError("No API key configured. Use `wandb login` to log in.")  # what 0.31 says without a terminal

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wandb.init", refuse)
    words = ["fit", "--config", "digits_prototypes", "--trainer.logger", "WandbLogger"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "W&B has no API key" in said
    assert "WANDB_MODE=offline" in said
    assert "WandbLogger(offline=True)" in said
    assert "Traceback" not in said


def test_other_errors_of_wandb_are_not_hidden():
    from wandb.errors import CommError, UsageError

    assert own_message(UsageError("api_key not configured (no-tty). call wandb login [your_api_key]")) is not None
    assert own_message(UsageError("project name is too long")) is None
    assert own_message(CommError("the network is unreachable")) is None
    assert own_message(RuntimeError("no api_key for the weather service")) is None


def test_two_runs_of_the_command_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config", "digits_prototypes", "--trainer.logger", "WandbLogger", "--trainer.logger.project", "p"]
    words += ["--data.source.test_fraction", "0.9", "--trainer.limit_val_batches", "1"]
    for name in ("one", "two"):
        wandb_logger(tmp_path)
        assert main([*words, "--trainer.logger.version", name, "--trainer.logger.offline", "true"]) == 0
        import wandb

        wandb.finish()
        assert {"config.yaml", "continual_report.json"} <= {f.name for f in (tmp_path / "runs" / "p" / name).iterdir()}
