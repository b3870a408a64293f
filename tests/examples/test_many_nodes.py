"""The scripts for several nodes: torchrun with two processes, and SLURM's commands played by others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cl.datamodules import Digits
from lightning_cl.metrics import read_report

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BASH = shutil.which("bash") or pytest.skip("there is no bash", allow_module_level=True)


def test_the_slurm_script_is_bash() -> None:
    subprocess.run([BASH, "-n", str(EXAMPLES / "slurm.sh")], check=True)


@pytest.mark.parametrize(
    ("exit_code", "calls"),
    [
        (0, ["srun python examples/train_nodes.py"]),
        (128 + signal.SIGTERM, ["srun python examples/train_nodes.py", "scontrol requeue 7"]),
        (1, ["srun python examples/train_nodes.py"]),
    ],
    ids=["finished", "stopped by the time limit", "failed"],
)
def test_only_a_run_that_was_stopped_is_queued_again(exit_code: int, calls: list[str], tmp_path: Path) -> None:
    for name, code in (("srun", exit_code), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!{BASH}\necho "{name} $*" >> "{tmp_path}/calls"\nexit {code}\n', encoding="utf-8")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run([BASH, str(EXAMPLES / "slurm.sh")], env=environment, cwd=tmp_path, check=False)
    assert done.returncode == exit_code
    assert (tmp_path / "calls").read_text(encoding="utf-8").splitlines() == calls


def test_the_slurm_script_asks_for_what_lightning_expects() -> None:
    options = dict(
        line.split()[1].removeprefix("--").split("=")
        for line in (EXAMPLES / "slurm.sh").read_text(encoding="utf-8").splitlines()
        if line.startswith("#SBATCH")
    )
    assert options["ntasks-per-node"] == options["gres"].removeprefix("gpu:")  # one process a GPU
    assert options["signal"].startswith("SIGTERM@")  # what ContinualCheckpoint listens to


@pytest.mark.slow
def test_torchrun_with_two_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", EXAMPLES / "train_nodes.py"]
    for _ in range(2):  # the second finds a finished run and has nothing to do
        subprocess.run([sys.executable, *map(str, command)], env=environment, cwd=tmp_path, check=True, timeout=1200)
    reports = [read_report(path) for path in tmp_path.rglob("continual_report.json")]
    for report in reports:
        assert report.class_il.tril().equal(reports[0].class_il.tril())
        assert report.evaluated[-1].tolist() == report.sizes.tolist()
    source = Digits()
    source.setup()
    assert sum(reports[0].sizes) == len(source.test_labels)
    assert sum(reports[0].samples_seen) == len(source.train_labels)  # each training image once, not once a process
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
