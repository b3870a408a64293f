"""The novel branch of Mamba-FSCIL: the loss of a session against its formula, and what its steps reach."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from lightning_cl.nn import novel_branch
from lightning_cl.nn.dual_projector import DualProjector
from lightning_cl.nn.heads import simplex_etf
from lightning_cl.nn.novel_branch import learn_session, session_loss

SIDE, CHANNELS, CLASSES = 2, 9, 6
OPTIONS = SimpleNamespace(
    side=SIDE,
    strength=4.0,
    suppress_base=7.0,
    excite_novel=0.3,
    separate=0.2,
    steps=5,
    lr=0.01,
    batch_size=6,
    mixup=0.5,
)
BASE = torch.tensor([True, True, False, False, False, False])
ROWS = simplex_etf(CLASSES, CHANNELS, torch.Generator().manual_seed(0)).double()


@pytest.fixture
def projector() -> DualProjector:
    torch.manual_seed(0)
    return DualProjector(CHANNELS, CHANNELS, SIDE, 2).double()


def samples() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(CLASSES, CHANNELS * (SIDE**2 + 1), generator=generator, dtype=torch.float64)


def test_the_loss_of_a_session_against_its_formula(projector: DualProjector) -> None:
    known, labels, others = samples(), torch.tensor([0, 2, 3, 1, 1, 4]), torch.tensor([1, 2, 0, 1, 0, 5])
    mixed = (known[labels] + known[others]) / 2
    found = session_loss(projector, {}, mixed, (labels, others), ROWS, BASE, OPTIONS)
    h, chosen = projector(mixed[:, :36].view(6, 9, 2, 2), mixed[:, 36:])
    dot = 0.0
    for y in (labels, others):
        terms = 0.5 * (F.cosine_similarity(h, ROWS[y]) - 1) ** 2
        dot += sum(terms[y == c].mean() for c in y.unique()) / len(y.unique()) / 2  # classes weigh alike
    base = torch.tensor([True, False, False, True, True, False])
    z = chosen.gate
    gate = 7 * z[base].square().sum().sqrt() / z[base].numel() - 0.3 * z[~base].square().sum().sqrt() / z[~base].numel()
    apart = sum(
        F.cosine_similarity(v[base].mean((0, 1)), v[~base].mean((0, 1)), dim=0).abs() / 2
        for v in chosen.coefficients[:3]
    )
    assert found.item() == pytest.approx((4 * dot + gate + 0.2 * apart).item(), rel=1e-6)


def test_steps_move_the_novel_branch_alone_and_alike_for_one_seed(projector: DualProjector) -> None:
    ends = []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        now = DualProjector(CHANNELS, CHANNELS, SIDE, 2).double()
        learn_session(now, (samples(), torch.arange(CLASSES)), ROWS, BASE, OPTIONS, seed)
        ends.append(now.state_dict())
    moved = {name for name, value in projector.state_dict().items() if not torch.equal(value, ends[0][name])}
    assert moved
    assert all(name.startswith("novel.") for name in moved)
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert any(not torch.equal(value, ends[2][name]) for name, value in ends[0].items())


def test_samples_are_mixed_half_and_half_with_their_labels(
    projector: DualProjector, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(novel_branch, "session_loss", lambda *args: given.append(args[2:4]) or session_loss(*args))
    learn_session(projector, (samples(), torch.arange(CLASSES)), ROWS, BASE, OPTIONS, 0)
    for mixture, (first, second) in given:
        assert torch.equal(mixture, (samples()[first] + samples()[second]) / 2)
    assert {bool(torch.equal(first, second)) for _, (first, second) in given} == {True, False}  # some steps mix
