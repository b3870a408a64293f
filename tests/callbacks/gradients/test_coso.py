"""CoSO on a network: what learns, and in which directions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached, train
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import CoSO

from ..adapters.watching import Watch

pytestmark = pytest.mark.filterwarnings("ignore")
MATRICES = [f"net.blocks.{block}.attn.proj.weight" for block in range(3)]


@pytest.mark.parametrize("side", ["out", "in"])
def test_later_tasks_move_no_matrix_along_directions_of_earlier_ones(side: Any, tmp_path: Any) -> None:
    watch = Watch()
    train(PLAIN, CoSO(rank=4, sketch=6, energy=0.995, side=side), tmp_path, callbacks=[watch])
    for task in range(3):
        start, end = watch.starts[task], watch.ends[task]
        moved = {name for name, value in start.items() if not torch.equal(value, end[name])}
        own = {name for name in moved if not name.startswith("continual.")}
        assert own == {*MATRICES, "net.head.weight", "net.head.bias"}
        for name in MATRICES:
            layer = name.removesuffix(".weight").replace(".", "/")
            memory = f"continual.parts.coso.spaces.{layer}.memory"
            basis = start[f"{memory}.directions"][:, : int(start[f"{memory}.rank"])]
            step = end[name] - start[name]
            along = basis.T @ (step if side == "out" else step.T)
            assert (basis.shape[1] > 0) == (task > 0)
            assert float(along.norm() / step.norm()) < 1e-5
            assert int(end[f"{memory}.rank"]) > basis.shape[1]


def test_logits_are_cooler_while_training() -> None:
    module, images = attached(PLAIN, CoSO(temperature=4.0)), torch.rand(5, 1, 16, 16)
    module.continual.mask.allow(None, range(6))
    plain: Tensor = module.eval()(images)
    assert_close(module.train()(images), plain / 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CoSO(refresh=0), "`refresh` is 0; give at least 1"),
        (lambda: CoSO(energy=2.0), r"`energy` is 2.0; give a number in \[0, 1\]"),
        (lambda: CoSO(temperature=0.0), "`temperature` is 0.0; give a number above 0"),
        (lambda: CoSO(side="both"), "`side` is 'both'"),
        (lambda: attached(PLAIN, CoSO(at="norm1")), "is a LayerNorm, or frozen, but CoSO trains the matrix"),
        (lambda: attached(PLAIN, CoSO(at="none")), "linear layers are net.blocks.0.attn.qkv"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
