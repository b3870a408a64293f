"""Shrink and perturb: a whole run in which it acts before tasks or after steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.callbacks import ShrinkAndPerturb
from lightning_cl.datamodules.sampling import mix_seed
from lightning_cl.nn.plasticity import shrink_and_perturb_

from ..by_hand import Net, assert_fine_tuning, make_stream, run, start, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def test_without_strength_it_is_fine_tuning() -> None:
    assert_fine_tuning(ShrinkAndPerturb(1.0, 0.0))
    assert_fine_tuning(ShrinkAndPerturb(1.0, 0.0, every=2))


def test_it_acts_before_every_task_but_the_first() -> None:
    class Noted(Net):
        def on_task_start(self, task: Any) -> None:
            super().on_task_start(task)
            self.begun = [*getattr(self, "begun", []), weights(self)]

    net = Noted()
    net.load_state_dict(start())
    module = run(ShrinkAndPerturb(0.5, 0.01), net=net)
    seed = make_stream().seed
    for task in (1, 2):
        expected = {name: value.clone() for name, value in module.ends[task - 1].items()}
        shrink_and_perturb_(expected, 0.5, 0.01, torch.Generator().manual_seed(mix_seed(seed, 0x5A9, task)))
        assert all(torch.equal(module.begun[0][name], value) for name, value in start().items())
        for name, value in expected.items():
            assert_close(module.begun[task][name], value)


def test_bad_numbers_are_refused() -> None:
    for options, message in (
        ({"shrink": 1.5}, r"in \[0, 1\]"),
        ({"noise": -1}, "at least 0"),
        ({"every": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ShrinkAndPerturb(**options)
