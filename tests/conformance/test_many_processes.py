"""One, two and three processes, and any change of their number on the way: the same samples, matrix and weights.

The batch size is that of all processes together, so the number of processes is no part of the result. What remains is
the order in which floating-point numbers are added up: weights are compared in double precision, within ``TOLERANCE``
(relative, absolute); counts, and which samples were trained on at which step, are equal.
"""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from lightning_cl.datamodules import SiBlurry

from .methods import METHODS, THOROUGH, make
from .modules import PLAIN
from .runs import in_forked_processes, train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
methods = pytest.mark.parametrize("method", THOROUGH, ids=lambda m: m.__name__)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}
#: 27 images a task: batches of 13, 13 and 1. Three processes share 13 as 5, 4 and 4; two of them get nothing of the 1.
STREAM = {"batch_size": 13}
#: SGD shows a gradient of the wrong size, which Adam hides.
OPTIONS = {"optimizer": "sgd", "precision": "64-true", "stream_options": STREAM}
STEPS_PER_EPOCH = 3
#: In mid-epoch of task 0, at its last batch, in mid-epoch of task 1, and before the short last batch of task 2.
CUTS = (2, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 3 * STEPS_PER_EPOCH + 2)
#: Numbers of processes before and after a cut.
CHANGES = ((2, 1), (1, 3), (3, 2))


class Samples(Callback):
    """What this process trains on, by optimiser step."""

    def __init__(self) -> None:
        self.trained: dict[int, list[int]] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        share, joined = trainer.datamodule.train_batch(batch_idx), trainer.datamodule.joined
        # A process without a sample is given one that does not count, unless replay gave it some.
        own = share.real + joined.local if joined is not None and joined.local else len(share.index)
        assert len(batch[1]) == own
        self.trained.setdefault(trainer.global_step, []).extend(share.index[: share.real].tolist())


def fit(method, folder, count, ckpt_path=None, **options):
    """Weights and counts of a run in ``count`` processes, with a checkpoint after every step, and its samples."""
    folder.mkdir()

    def rank() -> None:
        processes = {"strategy": "ddp", "devices": count} if count > 1 else {}
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
        samples = Samples()
        run = train(
            PLAIN,
            make(method),
            folder,
            callbacks=[samples, saving],
            ckpt_path=ckpt_path,
            **{**OPTIONS, **options, **processes},
        )
        torch.save((run.result(), samples.trained), folder / f"rank{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count) == [0] * count
    ranks = [torch.load(folder / f"rank{i}.pt", weights_only=True) for i in range(count)]
    for name, value in ranks[0][0].items():
        for other, _ in ranks[1:]:
            assert_close(other[name], value, rtol=0, atol=0, msg=f"{name} differs between the ranks")
    steps = ranks[0][1].keys()
    return ranks[0][0], {step: list(chain(*(trained[step] for _, trained in ranks))) for step in steps}


def assert_same_run(actual, expected):
    (result, trained), (result_expected, trained_expected) = actual, expected
    assert trained == {step: trained_expected[step] for step in trained}
    assert result.keys() == result_expected.keys()
    for name, value in result_expected.items():
        tolerance = TOLERANCE if name.startswith("module/") and value.is_floating_point() else {"rtol": 0, "atol": 0}
        assert_close(result[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs by method and number of processes, with their folder of checkpoints."""
    runs = {}

    def get(method, count):
        if (method, count) not in runs:
            folder = tmp_path_factory.mktemp("whole") / "run"
            runs[method, count] = folder, fit(method, folder, count)
        return runs[method, count]

    return get


@methods
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_equal_one(method, count, whole):
    (_, alone), (_, together) = whole(method, 1), whole(method, count)
    if method.stream_kind == "labelled":
        assert [len(rows) for rows in together[1].values()] == [13, 13, 1] * 4
    assert_same_run(together, alone)


@methods
@pytest.mark.parametrize(("before", "after"), CHANGES, ids=lambda n: str(n))
def test_resumed_on_another_number_of_processes(method, before, after, whole, tmp_path):
    """At one of the steps, in turn: over all methods every change is made at every step."""
    folder, _ = whole(method, before)
    _, expected = whole(method, 1)
    step = CUTS[(THOROUGH.index(method) + CHANGES.index((before, after))) % len(CUTS)]
    resumed = fit(method, tmp_path / f"from{step}", after, folder / f"step={step}.ckpt")
    assert list(resumed[1]) == [done for done in expected[1] if done >= step]
    assert_same_run(resumed, expected)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.__name__ in ("ExperienceReplay", "MVP")], ids=lambda m: m.__name__
)
def test_an_online_stream_resumed_on_another_number_of_processes(method, tmp_path):
    """Between two updates on a batch, and where classes appear in mid-task; with a memory and without."""
    scenario = {"scenario": SiBlurry(3, seed=4), "epochs_per_task": 1, "updates_per_batch": 2}
    online = {"stream_options": {**STREAM, **scenario}}
    expected = fit(method, tmp_path / "alone", 1, **online)
    assert_same_run(fit(method, tmp_path / "together", 2, **online), expected)
    for step in (3, 9):
        path = tmp_path / "together" / f"step={step}.ckpt"
        assert_same_run(fit(method, tmp_path / f"from{step}", 1, path, **online), expected)
