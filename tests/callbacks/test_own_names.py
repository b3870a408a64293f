"""A user's module may have parts of any name, also of those under which methods show theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.methods import METHODS, make
from conformance.modules import PLAIN, suited
from conformance.runs import attached
from conformance.streams import make_stream
from lightning.pytorch import Trainer, seed_everything
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")


def shown_names(method: type) -> list[str]:
    """Names under which a method shows pieces of its module, and those that the package used before."""
    module = attached(suited(PLAIN, method), make(method))
    names = [name for part in module.continual.parts.values() for name in part.known_as]
    return [*names, *(["replay", "memory"] if module.continual.memory is not None else [])]


SHOWING = [method for method in METHODS if shown_names(method)]


def with_own_parts(method: type, names: list[str]) -> Any:
    seed_everything(0, verbose=False)
    module = suited(PLAIN, method).build("sgd", 0.0)
    for name in names:
        setattr(module, name, nn.Linear(3, 2))
    return module


@pytest.mark.parametrize("method", SHOWING, ids=lambda method: method.__name__)
def test_a_users_own_attribute_stays(method: type, tmp_path: Path) -> None:
    names = shown_names(method)
    module = with_own_parts(method, names)
    own = {name: getattr(module, name) for name in names}
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=-1,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[make(method)], num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=make_stream(epochs_per_task=1))
    assert all(getattr(module, name) is part for name, part in own.items())
    saved = module.state_dict()
    fresh = with_own_parts(method, names)
    make(method).attach_once(fresh, trainer.datamodule.info)
    fresh.load_state_dict(saved)  # a state's own parts are not taken for those of an older checkpoint
    assert all(torch.equal(value, saved[name]) for name, value in fresh.state_dict().items() if torch.is_tensor(value))
