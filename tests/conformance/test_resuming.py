"""A run that is killed anywhere and resumed in fresh objects ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from .methods import METHODS, THOROUGH, in_turn, make, on_cases
from .modules import ASKING, FOREIGN_DICT, FOREIGN_TUPLE, IN_CONFIGURE_MODEL, IN_SETUP, PLAIN, SPLIT
from .runs import assert_same_bits, in_forked_processes, train
from .streams import STEPS_PER_EPOCH

methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
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


def interrupted(method, case, folder, step, sigkill=False):
    """Path of the last checkpoint of a run that was ended after it."""

    def run() -> None:
        saving = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=step, save_top_k=-1)
        train(case, make(method), folder, dropout=DROPOUT, callbacks=[Abort(step, sigkill), saving])

    if sigkill:
        assert in_forked_processes(run) == [-signal.SIGKILL]
    else:
        with pytest.raises(ConnectionAbortedError):
            run()
    return folder / f"step={step}.ckpt"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = {}

    def get(method, case):
        if (method, case) not in results:
            run = train(case, make(method), tmp_path_factory.mktemp("whole"), dropout=DROPOUT)
            results[method, case] = run.result(), run.trainer.optimizers[0].state_dict()
        return results[method, case]

    return get


PLACES = {
    "last-batch-of-a-task": (LAST_OF_TASK, False),
    "sigkill-mid-epoch": (MID_EPOCH, True),
    "mid-epoch-of-the-last-task": (MID_LAST_EPOCH, False),
}
#: Everywhere in the module that asks for most (thorough methods; the others quickly at one of these places, and slowly
#: at a second one); in the other modules once: test_kill_points.py kills them at random points.
#: Two of them build their network later, and must still end as the one that was whole from the beginning.
LATER = (ASKING, IN_SETUP, IN_CONFIGURE_MODEL)
KILLED = [
    pytest.param(
        method,
        case,
        *PLACES[name],
        id=f"{name}-{case.name}-{method.__name__}",
        marks=() if method in THOROUGH or name == in_turn(method, list(PLACES)) else pytest.mark.slow,
    )
    for method in METHODS
    for case, name in zip(LATER, PLACES, strict=True)
    if method in THOROUGH or name != in_turn(method, [*list(PLACES)[2:], *list(PLACES)[:2]])
]
KILLED += [
    pytest.param(method, case, MID_EPOCH, True, id=f"sigkill-{case.name}-{method.__name__}", marks=pytest.mark.slow)
    for method in THOROUGH
    for case in (PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT)
]


@pytest.mark.parametrize(("method", "case", "step", "sigkill"), KILLED)
def test_resume_is_invisible(method, case, step, sigkill, uninterrupted, tmp_path):
    path = interrupted(method, case, tmp_path, step, sigkill)
    torch.load(path, weights_only=True)
    resumed = train(case, make(method), tmp_path, dropout=DROPOUT, ckpt_path=path)
    result, optimizer = uninterrupted(method, ASKING if case in LATER else case)
    assert_same_bits(resumed.result(), result)
    assert str(resumed.trainer.optimizers[0].state_dict()) == str(optimizer)


@on_cases([PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT])
def test_checkpoints_hold_tensors_and_plain_values(method, case, finished, tmp_path):
    run = finished(method, case)
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == run.module.state_dict().keys()
