"""No training step waits for the device, but for those of methods whose mathematics asks for it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_cl.nn.feature_cache import sample_fingerprints

from .host_reads import Closing, HostReads, Opening
from .methods import METHODS, make
from .modules import PLAIN, suited
from .streams import make_stream

KNOWN: dict[str, str] = {}


def sites_of(method, folder):
    seed_everything(0, verbose=False)
    callback = make(method)
    case = suited(PLAIN, callback)
    options = {"batch_keys": case.batch_keys, "task_identity": callback.needs_task_identity, "epochs_per_task": 1}
    stream = case.stream(**options) if case.stream else make_stream(kind=callback.stream_kind, **options)
    reads = HostReads()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    with ExitStack() as stack:
        around = [Opening(reads, stack), callback, Closing(stack)]
        quiet |= {"enable_model_summary": False, "default_root_dir": folder, "max_epochs": -1}
        trainer = Trainer(accelerator="cpu", callbacks=around, **quiet)
        trainer.fit(case.build("adamw", 0.0), datamodule=stream)
    return reads.sites


def test_readings_of_the_package_are_found():
    images, reads = torch.rand(2, 3), HostReads()
    with reads:
        assert images.sum().item() > 0  # here, and not in the package
        sample_fingerprints(images)
    assert reads.sites == {"nn/feature_cache.py:sample_fingerprints": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_step_reads_no_value_from_the_device(method, tmp_path):
    found = sites_of(method, tmp_path)
    assert found.keys() <= KNOWN.keys(), dict(found)
