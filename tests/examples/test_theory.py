"""The examples of theory: what each says keeps the old tasks does keep them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def main_of(name: str, folder: Path, monkeypatch: Any) -> Any:
    monkeypatch.chdir(folder)
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_the_posterior_of_binary_weights_as_prior_forgets_less(tmp_path: Path, monkeypatch: Any) -> None:
    main = main_of("binary_weights", tmp_path, monkeypatch)
    kept, lost = (main(strength, epochs=2, accelerator="cpu", **QUIET).matrix() for strength in (1.0, 0.0))
    assert (kept.diagonal() > 0.7).all()
    assert kept[2, :2].mean() > lost[2, :2].mean() + 0.05


def test_an_open_vae_remembers_by_what_it_draws(tmp_path: Path, monkeypatch: Any) -> None:
    model, evaluation = main_of("open_vae", tmp_path, monkeypatch)(epochs=8, accelerator="cpu", **QUIET)
    assert evaluation.matrix()[4, :4].mean() > 0.25  # without what it draws: 0
    assert model.drawn is not None
    images, labels = model.drawn
    assert images.shape == (len(labels), 64)
    assert set(labels.tolist()) == set(range(10))
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.bound.outside(model.bound.means).diagonal(), torch.zeros(10, dtype=torch.float64))
    state: dict[str, Any] = {}
    model.on_save_checkpoint(state)
    model.drawn = None
    model.on_load_checkpoint(state)
    assert torch.equal(model.drawn[0], images)


def test_a_head_for_each_order_keeps_all_and_one_head_the_last(tmp_path: Path, monkeypatch: Any) -> None:
    main = main_of("timescales", tmp_path, monkeypatch)
    one, several = (main(heads, epochs=4, accelerator="cpu", **QUIET).matrix() for heads in ("one", "several"))
    assert several.tril()[several.tril() > 0].min() > 0.95
    assert one[2, 0] < 0.8 < one[0, 0]  # an order that is not asked any more is soon answered by chance
