"""Steps in which the head learns alone."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import TinyModule, images, stream_info

from lightning_cl.callbacks import FineTuning
from lightning_cl.training.head_only import (
    detached_features,
    drop_idle_gradients,
    idle_parameters,
    with_idle_parameters,
)

BATCH = images(4), torch.tensor([0, 1, 2, 3])


def module() -> Any:
    made = TinyModule()
    FineTuning("net.head").attach_once(made, stream_info(2))
    return made


def moved(module: Any) -> set[str]:
    return {name for name, p in module.named_parameters() if p.grad is not None}


def test_gradients_end_at_the_head_and_only_within_the_block():
    made = module()
    with detached_features(made):
        loss = made.training_step(BATCH, 0)
        pickle.dumps(made)  # with its hook
    loss.backward()
    assert moved(made) == {"net.head.weight", "net.head.bias"}
    after = made.training_step(BATCH, 0)
    assert torch.equal(after, loss)
    after.backward()
    assert moved(made) == {name for name, _ in made.named_parameters()}


def test_the_hook_goes_when_the_step_fails():
    made = module()
    with pytest.raises(ZeroDivisionError), detached_features(made):
        raise ZeroDivisionError
    made.training_step(BATCH, 0).backward()
    assert len(moved(made)) > 2


@pytest.mark.parametrize("form", ["loss", "dictionary"])
def test_with_several_processes_everything_has_a_gradient_which_is_then_dropped(form):
    made = module()
    made.__dict__["_trainer"] = SimpleNamespace(world_size=2, training=True)
    with detached_features(made):
        loss = torch.nn.functional.cross_entropy(made(BATCH[0]), BATCH[1])
    output = with_idle_parameters(made, loss if form == "loss" else {"loss": loss, "other": 1})
    total = output if form == "loss" else output["loss"]
    assert torch.equal(total, loss)
    total.backward()
    assert moved(made) == {name for name, _ in made.named_parameters()}
    assert all(not p.grad.any() for p in idle_parameters(made))
    drop_idle_gradients(made)
    assert moved(made) == {"net.head.weight", "net.head.bias"}


def test_one_process_needs_no_more_and_a_step_left_out_stays_so():
    made = module()
    made.__dict__["_trainer"] = SimpleNamespace(world_size=1)
    loss = torch.ones(())
    assert with_idle_parameters(made, loss) is loss
    made.__dict__["_trainer"] = SimpleNamespace(world_size=2)
    assert with_idle_parameters(made, None) is None
