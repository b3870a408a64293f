from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

SCRIPT = Path(__file__).resolve().parents[2] / "pretraining" / "pretrain_nano_vit.py"


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Three classes, nine drawings: with batches of four the last one is uneven."""
    ink = np.random.default_rng(0).integers(0, 256, (9, 28, 28), dtype=np.uint8)
    labels = (np.arange(9) % 3).astype(np.uint16)
    np.savez(tmp_path / "tiny.npz", train_x=ink[:6], train_y=labels[:6], test_x=ink[6:], test_y=labels[6:])
    return tmp_path / "tiny.npz"


def test_script_writes_weights_that_load(drawings, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "weights.safetensors"
    arguments = ["--data", str(drawings), "--out", str(out), "--epochs", "2", "--batch-size", "4"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "epoch 1: loss" in capsys.readouterr().out

    stored = load_file(out)
    assert not any(name.startswith("head.") for name in stored)
    with safe_open(out, "pt") as file:
        assert file.metadata()["licence"] == "MIT"
    model = timm.create_model("vit_nano_omniglot", pretrained=True, pretrained_cfg_overlay={"file": str(out)})
    assert_close(model.state_dict(), {name: w.float() for name, w in stored.items()}, rtol=0, atol=0)


def test_script_and_model_agree_on_pixels():
    names = runpy.run_path(str(SCRIPT))
    cfg = timm.create_model("vit_nano_omniglot").pretrained_cfg
    assert (cfg["mean"], cfg["std"]) == ((names["MEAN"],), (names["STD"],))


def test_augmented_drawings_stay_bright_ink_in_range():
    augment = runpy.run_path(str(SCRIPT))["augment"]
    blank, line = torch.zeros(64, 1, 28, 28), torch.zeros(64, 1, 28, 28)
    line[:, :, 4:24, 13:15] = 1
    assert not augment(blank).any()
    drawn = augment(line)
    assert drawn.shape == (64, 1, 16, 16)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert (drawn.amax((1, 2, 3)) > 0.1).all()  # no augmentation loses the character
    assert drawn.flatten(1).unique(dim=0).shape[0] == 64  # each image gets its own
