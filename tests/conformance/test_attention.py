"""Methods with prompts on networks of every family of attention: a resumed run and two processes end the same."""

from __future__ import annotations

import copy
import math
import pickle
from functools import cache

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.testing import assert_close

from .attention import NETWORKS, PROMPT_METHODS, attention_case, on_networks, small, takes_tokens
from .runs import assert_same_bits, in_forked_processes, train
from .streams import EPOCHS, STEPS_PER_EPOCH
from .test_modules import some_images

MID_EPOCH = STEPS_PER_EPOCH + 2  # of task 1
case_of = cache(attention_case)


class Abort(Callback):
    """Ends the run a step after the checkpoint."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == MID_EPOCH + 1:
            raise ConnectionAbortedError("the power is gone")


def refused(method, name):
    return method.__name__ == "MVP" and not takes_tokens(name)  # its prompts are tokens


@on_networks(*NETWORKS)
def test_it_learns_and_a_resumed_run_ends_in_the_same_bits(method, name, tmp_path):
    case = case_of(name)
    if refused(method, name):
        with pytest.raises(ValueError, match="no sequence that prompt tokens could join"):
            train(case, small(method, name), tmp_path)
        return
    whole = train(case, small(method, name), tmp_path)
    assert whole.trainer.global_step == sum(EPOCHS) * STEPS_PER_EPOCH
    assert all(map(math.isfinite, whole.watcher.losses))
    assert whole.watcher.stuck == whole.watcher.moved_rows == set()
    after = dict(whole.module.named_parameters())
    assert whole.watcher.frozen
    assert all(torch.equal(after[key], value) for key, value in whole.watcher.frozen.items())

    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=MID_EPOCH, save_top_k=-1)
    with pytest.raises(ConnectionAbortedError):
        train(case, small(method, name), tmp_path, callbacks=[Abort(), saving])
    path = tmp_path / f"step={MID_EPOCH}.ckpt"
    torch.load(path, weights_only=True)
    resumed = train(case, small(method, name), tmp_path, ckpt_path=path)
    assert_same_bits(resumed.result(), whole.result())

    module, images = copy.deepcopy(whole.module).eval(), some_images()
    with torch.no_grad():
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert_close(twin(images), module(images), rtol=0, atol=0)
            one_by_one = torch.cat([twin(images[i : i + 1]) for i in range(len(images))])
            assert_close(one_by_one, module(images), rtol=1e-4, atol=1e-4)


#: Each network with the next method, at once where attention is the least like timm's.
TWICE = [
    pytest.param(
        PROMPT_METHODS[(i + 1) % len(PROMPT_METHODS)], name, marks=() if name == "hf-vit" else pytest.mark.slow
    )
    for i, name in enumerate(NETWORKS)
]


@pytest.mark.parametrize(("method", "name"), TWICE)
def test_two_processes_equal_one(method, name, tmp_path):
    if refused(method, name):
        pytest.skip("its prompts are tokens")
    case, options = case_of(name), {"optimizer": "sgd", "precision": "64-true"}

    def rank() -> None:
        run = train(case, small(method, name), tmp_path, **options, strategy="ddp", devices=2)
        torch.save(run.result(), tmp_path / f"rank{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = train(case, small(method, name), tmp_path, **options).result()
    first, second = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    assert_same_bits(first, second)
    for key, value in expected.items():
        assert_close(first[key], value, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f"{key}: {text}")
