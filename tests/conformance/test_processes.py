"""Two processes and one, at the same global batch: the same accuracy matrix and the same weights."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lightning_cl.callbacks import EWC, GEM, DERPlusPlus

from .methods import METHODS, THOROUGH, make
from .modules import ASKING, FOREIGN_DICT, FOREIGN_TUPLE, IN_CONFIGURE_MODEL, IN_SETUP, PLAIN, SPLIT
from .output_modules import HF_IMAGES, HF_TEXTS
from .runs import in_forked_processes, train

OTHERS = (PLAIN, SPLIT, FOREIGN_TUPLE, FOREIGN_DICT, IN_SETUP, IN_CONFIGURE_MODEL)
PAIRS = [(method, ASKING) for method in THOROUGH]
PAIRS += [(DERPlusPlus, HF_TEXTS)]
RARE = [(method, ASKING) for method in METHODS if method not in THOROUGH]
RARE += [(method, OTHERS[turn % len(OTHERS)]) for turn, method in enumerate(THOROUGH)]
PAIRS += [pytest.param(*pair, marks=pytest.mark.slow) for pair in [*RARE, (GEM, HF_TEXTS), (EWC, HF_IMAGES)]]


@pytest.mark.parametrize(("method", "case"), PAIRS, ids=lambda v: getattr(v, "__name__", None) or v.name)
def test_two_processes_equal_one(method, case, tmp_path):
    # SGD shows a gradient of the wrong size, which Adam hides. A module with an Adam of its own blows up the rounding
    # errors of gradients that should be zero, hence double precision.
    options = {"optimizer": "sgd", "precision": "64-true"}

    def rank() -> None:
        run = train(case, make(method), tmp_path, **options, strategy="ddp", devices=2)
        torch.save(run.result(), tmp_path / f"rank{run.trainer.global_rank}.pt")

    assert in_forked_processes(rank, count=2) == [0, 0]
    expected = train(case, make(method), tmp_path, **options).result()
    ranks = [torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1)]
    for name, value in expected.items():
        assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0, msg=f"{name} differs between the ranks")
        exact = not name.startswith("module/")
        sums = not make(method).trains  # what is counted in closed form knows no order
        tolerance = (
            {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-9 if sums else 1e-6, "atol": 1e-9 if sums else 1e-8}
        )
        assert_close(ranks[0][name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
