"""InfLoRA and SD-LoRA: what is fixed, what is orthogonal, and what does not change at a boundary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conformance.modules import PLAIN
from conformance.runs import attached, train
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.testing import assert_close

from lightning_cl.callbacks import InfLoRA, SDLoRA

from .watching import Watch, evaluated_twice, task_images

pytestmark = pytest.mark.filterwarnings("ignore")


class Runs:
    """A run of each method, made once."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.made = folder, dict[str, Any]()

    def __call__(self, method: Any) -> tuple[Any, Watch]:
        key = repr(method)
        if key not in self.made:
            watch = Watch()
            self.made[key] = train(PLAIN, method, self.folder, callbacks=[watch]), watch
        return self.made[key]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("low_rank"))


def bank(state: dict[str, Tensor], name: str, block: int = 0) -> Tensor:
    (found,) = [v for n, v in state.items() if n.endswith(f"adapters.banks.blocks/{block}/attn/qkv.{name}")]
    return found


METHODS = [InfLoRA(**InfLoRA.small, energy=0.6), SDLoRA(**SDLoRA.small)]
methods = pytest.mark.parametrize("method", METHODS, ids=["inflora", "sdlora"])


@methods
def test_a_boundary_changes_no_answer(method: Any, runs: Runs) -> None:
    """InfLoRA: bit for bit; SD-LoRA: but for the rounding of the new lengths."""
    _, watch = runs(method)
    tolerance = 0.0 if isinstance(method, InfLoRA) else 1e-5
    for end, start in zip(watch.features["end"], watch.features["start"][1:], strict=False):
        assert_close(start, end, rtol=0, atol=tolerance)
    assert not torch.equal(watch.features["end"][0], watch.features["end"][1])  # it learns


@methods
def test_at_first_it_is_the_plain_trunk_bit_for_bit(method: Any) -> None:
    module, images = attached(PLAIN, method), torch.rand(5, 1, 16, 16)
    seed_everything(0, verbose=False)
    plain = PLAIN.build("adamw", 0.0)
    assert torch.equal(module.eval()(images), plain.eval()(images))


@methods
def test_evaluating_twice_changes_nothing(method: Any, runs: Runs) -> None:
    run, _ = runs(method)
    first, second = evaluated_twice(run.module, torch.rand(7, 1, 16, 16))
    assert torch.equal(first, second)


@methods
def test_directions_of_other_tasks_do_not_move_by_a_bit(method: Any, runs: Runs) -> None:
    _, watch = runs(method)
    for task in range(3):
        for name in ("down", "up"):
            start, end = bank(watch.starts[task], name), bank(watch.ends[task], name)
            others = [s for s in range(3) if s != task]
            assert torch.equal(start[others], end[others])
            assert torch.equal(start[task], end[task]) == (name == "down" and isinstance(method, InfLoRA))


def covariance(module: Any, images: Tensor) -> Tensor:
    """``X^T X`` of what the first attention's projection reads."""
    with torch.no_grad():
        vit = module.net
        x = vit.blocks[0].norm1(vit._pos_embed(vit.patch_embed(images)))
    rows = x.flatten(0, 1).double()
    return rows.T @ rows


def test_input_directions_are_the_strongest_outside_the_subspace(runs: Runs) -> None:
    run, watch = runs(METHODS[0])
    basis = torch.zeros(32, 0, dtype=torch.float64)
    for task in range(3):
        c = covariance(run.module, task_images(run.stream, task)[0])  # the first block's inputs never change
        down = bank(watch.ends[task], "down")[task].double()
        assert_close(down @ down.T, torch.eye(2, dtype=torch.float64) / 3, rtol=0, atol=1e-6)
        if basis.shape[1]:
            assert float((down @ basis).abs().max()) < 1e-5
        left, _, _ = torch.linalg.svd(c - basis @ basis.T @ c)
        assert_close((left[:, :2].T @ down.T * 3**0.5).abs(), torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-3)
        kept = watch.ends[task]["continual.parts.inflora.memories.0.directions"].double()
        size = int(watch.ends[task]["continual.parts.inflora.memories.0.rank"])
        share = 0.6 + 0.4 * task / 3
        old, rest = basis, c - basis @ basis.T @ c
        left, values, _ = torch.linalg.svd(rest)
        held, count = 1 - float((values**2).sum() / (c**2).sum()), 0
        while held + float(values[count] ** 2 / (c**2).sum()) < share:
            held, count = held + float(values[count] ** 2 / (c**2).sum()), count + 1
        crossing = 1 if task and held < share else 0
        assert size == max(old.shape[1] + count + crossing, 1)
        basis = kept[:, :size]


def test_what_a_task_adds_does_not_answer_to_earlier_inputs(runs: Runs) -> None:
    _, watch = runs(METHODS[0])
    final = watch.ends[2]
    size = int(watch.ends[0]["continual.parts.inflora.memories.0.rank"])
    basis = watch.ends[0]["continual.parts.inflora.memories.0.directions"][:, :size]
    added = bank(final, "up")[1].T @ bank(final, "down")[1]
    assert float(added.abs().max()) > 1e-3
    assert float((added @ basis).abs().max()) < 1e-6


def test_magnitudes_of_all_tasks_learn(runs: Runs) -> None:
    _, watch = runs(METHODS[1])
    for task in range(3):
        start, end = bank(watch.starts[task], "magnitude"), bank(watch.ends[task], "magnitude")
        assert [bool(a != b) for a, b in zip(start, end, strict=True)] == [s <= task for s in range(3)]
    down, up = bank(watch.starts[1], "down")[0], bank(watch.starts[1], "up")[0]
    assert_close(torch.stack([down.norm(), up.norm()]), torch.ones(2))
    before = bank(watch.ends[0], "magnitude")[0] * bank(watch.ends[0], "down")[0].norm()
    assert_close(bank(watch.starts[1], "magnitude")[0], before * bank(watch.ends[0], "up")[0].norm())


def test_magnitudes_reset_as_released(runs: Runs) -> None:
    _, watch = runs(SDLoRA(**SDLoRA.small, reset_magnitudes=True))
    assert_close(bank(watch.starts[2], "magnitude"), torch.full((3,), 0.8))
    jump = (watch.features["end"][0] - watch.features["start"][1]).abs().max()
    assert float(jump) > 1e-4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InfLoRA(rank=0), "`rank` is 0; give at least 1"),
        (lambda: InfLoRA(energy=1.5), r"`energy` is 1.5; give a number in \[0, 1\]"),
        (lambda: SDLoRA(magnitude=0.0), "`magnitude` is 0.0; give a number above 0"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
