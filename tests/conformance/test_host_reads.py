"""No training step waits for the device, but for those of methods whose mathematics asks for it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_cl.nn.feature_cache import sample_fingerprints

from .host_reads import PACKAGE, Closing, HostReads, Opening
from .methods import METHODS, make
from .modules import PLAIN, suited
from .streams import make_stream

HOST = "labels, positions and draws of a memory are on the host"
CHOICE = "the values decide what is computed next"
#: Beginnings of sites that may read, each with the reason.
KNOWN = {
    "nn/replay/": HOST,
    "training/replay.py": HOST,
    "training/memory_steps.py:cutmix_loss": "drawn by a generator on the host",
    "nn/cutmix.py:draw_cutmix": "drawn by a generator on the host",
    "nn/views.py": "drawn by a generator on the host",
    "callbacks/gradients/references.py": HOST,
    "callbacks/replay/er_aml.py": HOST,
    "nn/partners.py:draw_partners": HOST,
    "callbacks/gradients/gem.py": "the quadratic program is solved on the host",
    "nn/gradients.py": "the quadratic program is solved on the host",
    "callbacks/replay/clib.py": "losses decide which items the memory keeps",
    "callbacks/replay/plfms.py": "losses decide which items the memory keeps",
    "callbacks/replay/onpro.py": "prototypes decide how many samples of each pair are mixed",
    "nn/online_prototypes.py": "prototypes decide how many samples of each pair are mixed",
    "callbacks/architecture/tame.py": "the detector of shifts compares losses, and may open an expert",
    "nn/loss_shift.py": "the detector of shifts compares losses, and may open an expert",
    "callbacks/adaptation/cotta.py:adaptation_loss": CHOICE,
    "callbacks/plasticity/dormant_reset.py:after_step": CHOICE,
    "callbacks/plasticity/adaptive_replay_ratio.py:_compare": "once a window of updates",
    "callbacks/few_shot/imbalance_aware_joint.py": "which sample is pasted is drawn on the host, by counts",
    "callbacks/language/mulki.py:losses": "classes that have a prototype decide the shapes",
    "nn/gradient_subspace.py:follow": "directions of a gradient that is not finite would be no directions",
    "nn/heads/gram.py:ridge_solution": "a matrix that cannot be solved is told at once",
    "nn/heads/mahalanobis.py": "classes that were seen decide the shapes; nothing is trained beside it",
    "nn/heads/statistics.py:update": "each class of a batch has sums of its own; nothing is trained beside it",
    "callbacks/replay/mir.py:losses": "losses decide which items are read from the memory",
    "mixins/base.py:protected_rows": "once where a phase of a task begins",
    "training/loss_plateau.py": "the detector of plateaus compares losses",
    "callbacks/regularization/task_free_mas.py": "once at a plateau",
    "callbacks/regularization/mas.py:sensitivity": "once at a plateau",
    "nn/sparse_topology.py": "once in some steps, when the connections are chosen anew",
    "nn/masks.py:smallest_elements": "once in some steps, when the connections are chosen anew",
}


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
    assert [site for site in found if not site.startswith(tuple(KNOWN))] == []


def test_every_reason_is_of_code_that_there_is():
    for site in KNOWN:
        path, _, function = site.partition(":")
        assert (PACKAGE / path).exists(), site
        assert not function or f"def {function}(" in (PACKAGE / path).read_text(), site
