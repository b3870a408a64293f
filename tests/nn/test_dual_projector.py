"""The dual projector: its closed gate, and its losses against their formulas."""

from __future__ import annotations

import pytest
import torch

from lightning_cl.nn.dual_projector import DualProjector, balanced_weights, dot_regression, separation, suppression
from lightning_cl.nn.heads import simplex_etf
from lightning_cl.nn.selective_scan import Coefficients, ScanOutput


def test_the_novel_branch_adds_nothing_before_it_learns() -> None:
    torch.manual_seed(0)
    projector, maps, features = DualProjector(4, 6, 2, 3), torch.randn(3, 4, 2, 2), torch.randn(3, 4)
    both, alone = projector(maps, features), projector(maps, features, novel=False)
    assert torch.equal(both.features, alone.features)
    assert alone.novel is None
    assert torch.equal(projector.novel(maps)[0], torch.zeros(3, 6))


def test_the_identity_is_the_feature_where_widths_agree() -> None:
    projector = DualProjector(4, 4, 1, 2)
    projector.base.block.close_gate()
    features = torch.randn(2, 4)
    assert torch.equal(projector(torch.randn(2, 4, 1, 1), features).features, features)


def test_the_rows_of_the_simplex() -> None:
    """Gram matrix ``K / (K - 1) I - 1 / (K - 1) 1 1^T``."""
    rows = simplex_etf(5, 7, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows @ rows.T, 1.25 * torch.eye(5).double() - 0.25)


def test_dot_regression() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert dot_regression(3 * rows, rows).item() == 0
    assert dot_regression(rows.flip(0), rows).item() == pytest.approx(0.5)  # cosine 0
    assert dot_regression(-rows, rows, torch.tensor([1.0, 0.0])).item() == pytest.approx(1.0)  # 1/2 * 4, of two


def test_classes_of_a_batch_weigh_alike() -> None:
    weights = balanced_weights(torch.tensor([7, 3, 3, 3]))
    assert weights.tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])


def test_suppression_of_the_gate() -> None:
    gate = torch.tensor([[[3.0, 4.0]], [[6.0, 8.0]], [[0.0, 2.0]]])
    base = torch.tensor([True, True, False])
    assert suppression(gate, base, 10.0, 4.0).item() == pytest.approx(10 * 125**0.5 / 4 - 4 * 2 / 2)
    assert suppression(gate, base | True, 10.0, 4.0).item() == pytest.approx(10 * 129**0.5 / 6)


def test_separation_is_half_of_the_absolute_cosines() -> None:
    def chosen(base: list[float], novel: list[float]) -> ScanOutput:
        values = torch.tensor([[base], [novel]])  # (2, 1, 2)
        return ScanOutput(values, values, Coefficients(values, values, values, values[0]))

    groups = torch.tensor([True, False])
    assert separation(chosen([1.0, 0.0], [0.0, 2.0]), groups).item() == pytest.approx(0, abs=1e-6)
    assert separation(chosen([1.0, 0.0], [1.0, 1.0]), groups).item() == pytest.approx(3 * 0.5**0.5 / 2)
    assert separation(chosen([1.0, 0.0], [1.0, 1.0]), groups | True).item() == 0
