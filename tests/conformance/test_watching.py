"""The callback that looks over a method's shoulder watches streams of any length."""

from __future__ import annotations

import pytest

from lightning_cl.callbacks import FineTuning
from lightning_cl.datamodules import ClassIncremental

from .modules import PLAIN
from .runs import train
from .streams import NUM_CLASSES


@pytest.mark.filterwarnings("ignore")
def test_a_stream_of_one_task_has_no_row_that_must_stay(tmp_path):
    stream = {"scenario": ClassIncremental(num_tasks=1), "epochs_per_task": 1, "batch_size": 41}
    run = train(PLAIN, FineTuning(train_mask="task"), tmp_path, stream_options=stream)
    assert len(run.watcher.losses) == run.trainer.global_step == 2
    assert run.watcher.moved_rows == run.watcher.stuck == run.watcher.protected == set()
    assert run.stream.info.classes_per_task == (tuple(range(NUM_CLASSES)),)
