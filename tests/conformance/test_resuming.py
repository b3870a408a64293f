"""A run that is killed again and again and resumed in fresh objects ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from .methods import THOROUGH, make, on_cases, paired
from .modules import ASKING, FOREIGN_DICT, FOREIGN_TUPLE, IN_CONFIGURE_MODEL, IN_SETUP, PLAIN, SPLIT
from .runs import assert_same_bits, in_forked_processes, train
from .streams import STEPS_PER_EPOCH

MID_EPOCH = STEPS_PER_EPOCH + 2  # of task 1
LAST_OF_TASK = STEPS_PER_EPOCH  # saved before the task's end was evaluated
MID_LAST_EPOCH = 3 * STEPS_PER_EPOCH + 2  # of task 2, the third
DROPOUT = 0.3  # so that the state of the random generators matters


class Abort(Callback):
    """Ends the run at the first batch after ``step`` optimiser steps, by an exception or by SIGKILL."""

    def __init__(self, step: int, sigkill: bool = False) -> None:
        self.step, self.sigkill = step, sigkill

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step + 1:  # one step that no checkpoint knows of
            if self.sigkill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ConnectionAbortedError("the power is gone")


def interrupted(method, case, folder, step, sigkill, begin=None):
    """Path of the last checkpoint of a run that goes on from ``begin`` and is ended after ``step``."""

    def run() -> None:
        saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=step, save_top_k=-1)
        ending = Abort(step, sigkill)
        train(case, make(method), folder, dropout=DROPOUT, callbacks=[ending, saving], ckpt_path=begin)

    if sigkill:
        assert in_forked_processes(run) == [-signal.SIGKILL]
    else:
        with pytest.raises(ConnectionAbortedError):
            run()
    return folder / f"step={step}.ckpt"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = {}

    def get(method):
        if method not in results:
            run = train(ASKING, make(method), tmp_path_factory.mktemp("whole"), dropout=DROPOUT)
            results[method] = run.result(), run.trainer.optimizers[0].state_dict()
        return results[method]

    return get


#: In the order of the run: the second by SIGKILL, the others by an exception.
CUTS = ((LAST_OF_TASK, False), (MID_EPOCH, True), (MID_LAST_EPOCH, False))
#: The module that asks for most, and two that build their network later and must end as the one that was whole from the
#: beginning. Others are killed at random points in test_kill_points.py.
LATER = (ASKING, IN_SETUP, IN_CONFIGURE_MODEL)
KILLED = [pytest.param(m, c, marks=() if m in THOROUGH else pytest.mark.slow) for m, c in paired(LATER)]


@pytest.mark.parametrize(("method", "case"), KILLED, ids=lambda v: getattr(v, "__name__", None) or v.name)
def test_resume_is_invisible(method, case, uninterrupted, tmp_path):
    path = None
    for step, sigkill in CUTS:
        path = interrupted(method, case, tmp_path, step, sigkill, path)
        torch.load(path, weights_only=True)
    resumed = train(case, make(method), tmp_path, dropout=DROPOUT, ckpt_path=path)
    result, optimizer = uninterrupted(method)
    assert_same_bits(resumed.result(), result)
    assert str(resumed.trainer.optimizers[0].state_dict()) == str(optimizer)


@on_cases([PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT])
def test_checkpoints_hold_tensors_and_plain_values(method, case, finished, tmp_path):
    run = finished(method, case)
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == run.module.state_dict().keys()
