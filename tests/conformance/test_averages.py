"""Beside averages of weights every method knows what it knows without them, and the averaged model answers by it."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from torch.testing import assert_close

from lightning_cl import restore

from .methods import METHODS, THOROUGH, case_of, make
from .modules import PLAIN, suited
from .runs import assert_same_bits, train
from .streams import EPOCHS, digits

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(callbacks, "WeightAveraging"), reason="Lightning 2.6 brought averages of weights"),
]
AVERAGES = {
    "EMA": lambda: callbacks.EMAWeightAveraging(decay=0.9),
    "mean": lambda: callbacks.WeightAveraging(),
    "SWA": lambda: StochasticWeightAveraging(1e-3, swa_epoch_start=1),
}


def names_of(module):
    """Names of what an average must not touch: what the method keeps in buffers, and frozen weights."""
    own = module.continual.own_buffers
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return [name for name in module.state_dict() if name in ({n for n, _ in module.named_buffers()} - own) | frozen]


def images():
    (_, _), (found, _) = digits()
    return torch.from_numpy(found[:9]).float().div(255)[:, None]


@pytest.mark.parametrize(
    ("method", "average"),
    [
        *(pytest.param(m, "EMA", marks=() if m in THOROUGH else pytest.mark.slow) for m in METHODS),
        *((m, n) for m in THOROUGH[:3] for n in ("mean", "SWA")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_a_method_knows_is_not_averaged(method, average, finished, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    case = PLAIN if method in THOROUGH else case_of(method)
    run, whole = train(case, make(method), tmp_path, callbacks=[AVERAGES[average](), saver]), finished(method, case)
    expected, names = whole.module.state_dict(), names_of(whole.module)
    assert any(name.startswith("continual.mask.") for name in names)
    averaged, saved = run.module.state_dict(), torch.load(saver.best_model_path, weights_only=True)
    if average != "SWA":  # which replaces the learning rate
        assert_same_bits({name: averaged[name] for name in names}, {name: expected[name] for name in names})
        assert_same_bits(saved["current_model_state"], expected)
        assert_same_bits({name: saved["state_dict"][name] for name in names}, {n: expected[n] for n in names})
    else:
        masks = [name for name in names if "mask" in name or "counter" in name]
        assert_same_bits({name: averaged[name] for name in masks}, {name: expected[name] for name in masks})
        assert run.trainer.current_epoch == sum(EPOCHS)
        return
    restored = restore(saver.best_model_path, suited(case, method).build("adamw", 0.0), [make(method)])
    if method.needs_task_identity:
        restored.continual.task = run.module.continual.task = 1
    with torch.no_grad():
        assert_close(restored(images()), run.module.eval()(images()), rtol=1e-5, atol=1e-5)
