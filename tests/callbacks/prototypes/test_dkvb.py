"""DKVB in a run: keys fitted to the first task and then fixed, values that do not depend on optimisers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached, train
from torch.testing import assert_close

from lightning_cl.callbacks import DKVB, ContinualCallback
from lightning_cl.datamodules import SiBlurry

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"codebooks": 4, "pairs": 16, "key_width": 4, "key_epochs": 3}


class Keys(ContinualCallback):
    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []

    def on_task_end(self, trainer: Any, pl_module: Any, task: Any) -> None:
        self.keys.append(pl_module.continual.parts["dkvb"].bank.keys.clone())


def test_keys_are_of_the_first_task_and_stay(tmp_path):
    watch = Keys()
    run = train(PLAIN, DKVB(**SMALL), tmp_path, callbacks=[watch])
    bank = run.module.continual.parts["dkvb"].bank
    assert all(torch.equal(keys, watch.keys[0]) for keys in watch.keys)
    loader = run.stream.train_loader_for(0, "eval", 0)
    order = loader.sampler.order()
    index = torch.cat([loader.sampler.batch(order, i).index for i in range(len(loader))])
    images, labels = run.stream.batch(index, "eval")
    assert set(labels.tolist()) == {0, 1}
    fresh = DKVB(**SMALL).bank(6, 32)
    with torch.no_grad():
        fresh.fit_keys(run.module.head_input(images), 3, 256)
    assert_close(bank.keys, fresh.keys, rtol=1e-4, atol=1e-4)
    assert bank.counts.tolist() == [13.0, 14.0, 26.0, 28.0, 13.0, 14.0]  # two epochs in the second task


def test_keys_of_other_data(tmp_path):
    path = tmp_path / "features.npy"
    np.save(path, np.random.default_rng(0).normal(size=(50, 32)))
    online = {"scenario": SiBlurry(3, seed=4), "epochs_per_task": 1, "updates_per_batch": 2}
    run = train(PLAIN, DKVB(**SMALL, key_features=str(path)), tmp_path, stream_options=online)
    bank = run.module.continual.parts["dkvb"].bank
    assert bank.counts.sum() == 2 * 81
    assert not torch.equal(bank.keys, DKVB(**SMALL).bank(6, 32).keys)
    with pytest.raises(ValueError, match="DKVB fits its keys to the first task's images before the first step"):
        train(PLAIN, DKVB(**SMALL), tmp_path, stream_options=online)
    np.save(path, np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"shape \(5, 3\), but the network's features have 32 channels"):
        attached(PLAIN, DKVB(**SMALL, key_features=str(path)))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"`label_smoothing` is 1\.0; give a number below 1"):
        DKVB(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"DKVB need [\d,]+ bytes"):
        attached(PLAIN, DKVB(codebooks=10**6, pairs=10**6))
