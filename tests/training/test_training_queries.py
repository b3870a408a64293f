"""The query of a training image is computed once a task, and no bit of a run depends on where it was stopped."""

from __future__ import annotations

import pytest
import torch
from conformance.methods import make
from conformance.modules import ASKING, PLAIN, PlainModule
from conformance.runs import assert_same_bits, in_forked_processes, train
from conformance.streams import make_stream
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from lightning_cl.callbacks import CODAPrompt, DualPrompt, ExperienceReplay

pytestmark = pytest.mark.filterwarnings("ignore")
CACHED = {"cache_training_queries": True}
FIXED = {"augment": "none"}


class Passes(Callback):
    """Counts images in training steps that go through the last block but one, which a prompted pass has, too."""

    def __init__(self):
        self.images, self.step = [], 0

    def on_train_start(self, trainer, pl_module):
        pl_module.net.blocks[-2].mlp.register_forward_hook(lambda _, args, __: self.images.append(len(args[0])))

    def on_validation_start(self, *_):
        self.step = len(self.images)

    def on_validation_end(self, *_):
        del self.images[self.step :]


def run(folder, method, augment="none", callbacks=(), **options):
    stream = {"augment": augment, "epochs_per_task": 3}
    return train(PLAIN, method, folder, stream_options=stream, callbacks=callbacks, num_sanity_val_steps=0, **options)


@pytest.mark.parametrize("method", [DualPrompt, CODAPrompt])
def test_a_run_ends_as_without_and_makes_one_query_pass_a_task(method, tmp_path):
    counters, options = [Passes(), Passes()], {"optimizer": "sgd", "precision": "64-true"}
    results = [
        run(tmp_path, make(method, cache_training_queries=cached), callbacks=[counter], **options).result()
        for cached, counter in zip((True, False), counters, strict=True)
    ]
    for name, value in results[1].items():
        assert_close(results[0][name], value, rtol=1e-9, atol=1e-9, msg=name)
    # Prompted passes in three epochs of 81 images in all, and queries: once, with 8 images of each task to compare.
    assert [sum(counter.images) for counter in counters] == [3 * 81 + 81 + 3 * 8, 2 * 3 * 81]


class Abort(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 19:  # in the second epoch of the second task
            raise ConnectionAbortedError


def test_a_resumed_run_has_the_same_bits(tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=18, save_top_k=-1)
    expected = run(tmp_path, make(DualPrompt, **CACHED)).result()
    with pytest.raises(ConnectionAbortedError):
        run(tmp_path, make(DualPrompt, **CACHED), callbacks=[Abort(), saving])
    resumed = run(tmp_path, make(DualPrompt, **CACHED), ckpt_path=tmp_path / "step=18.ckpt")
    assert_same_bits(resumed.result(), expected)


def test_two_processes_end_as_one(tmp_path):
    options = {"optimizer": "sgd", "precision": "64-true", "stream_options": FIXED}

    def rank() -> None:
        done = train(ASKING, make(DualPrompt, **CACHED), tmp_path, **options, strategy="ddp", devices=2)
        torch.save(done.result(), tmp_path / f"rank{done.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = train(ASKING, make(DualPrompt, **CACHED), tmp_path, **options).result()
    for index in (0, 1):
        result = torch.load(tmp_path / f"rank{index}.pt", weights_only=True)
        for name, value in expected.items():
            assert_close(result[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_replayed_images_are_computed_beside_known_ones(tmp_path):
    counter, replay = Passes(), ExperienceReplay(memory_size=12, batch_size=4)
    run(tmp_path, make(DualPrompt, **CACHED), callbacks=[replay, counter])
    replayed = 35 * 4  # beside every batch but the first
    assert sum(counter.images) == 3 * 81 + 81 + 3 * 8 + 2 * replayed


def test_augmented_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"same in every epoch, but the training transform .* `augment=\"none\"`"):
        run(tmp_path, make(DualPrompt, **CACHED), augment="crop")


def test_a_module_that_asks_twice_is_refused(tmp_path):
    class Doubling(PlainModule):
        def forward(self, images):
            return super().forward(torch.cat([images, images]))[: len(images)]

    method, quiet = make(DualPrompt, **CACHED), {"logger": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", callbacks=[method], max_epochs=-1, default_root_dir=tmp_path, **quiet)
    with pytest.raises(ValueError, match="gives the images of a batch, one tensor with a row for each"):
        trainer.fit(Doubling(), datamodule=make_stream(augment="none"))
