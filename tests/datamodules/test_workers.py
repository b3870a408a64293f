"""Worker processes stay over the whole stream where asked, and end with the run."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
from lightning.pytorch import Callback
from tiny_stream import TinyModule, make_stream, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")


class Fails(Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("callbacks", [[], [Fails()]], ids=["finished", "failed"])
def test_workers_that_stay_end_with_the_run(callbacks):
    stream = make_stream(epochs_per_task=1, num_workers=1, persistent_workers=True)
    trainer = make_trainer(callbacks=callbacks)
    before = set(multiprocessing.active_children())
    try:
        trainer.fit(module := TinyModule(), datamodule=stream)
        trainer.test(module, datamodule=stream, verbose=False)
    except RuntimeError:
        assert callbacks
    assert set(multiprocessing.active_children()) <= before


def test_workers_stay_over_the_whole_stream():
    seen: set[int | None] = set()

    class Workers(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            seen.update(child.pid for child in multiprocessing.active_children())

    trainer = make_trainer(callbacks=[Workers()], limit_val_batches=0)
    trainer.fit(TinyModule(), datamodule=make_stream(epochs_per_task=2, num_workers=1, persistent_workers=True))
    assert len(seen) == 1
