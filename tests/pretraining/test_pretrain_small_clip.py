from __future__ import annotations

import io
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from lightning_cl.models import CLIPClassifier

SCRIPT = Path(__file__).resolve().parents[2] / "pretraining" / "pretrain_small_clip.py"


@pytest.fixture
def names():
    return runpy.run_path(str(SCRIPT))


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three classes in arrays and two in JPEG, one of them known already."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 20, 20, 3), dtype=np.uint8)
    labels = (np.arange(9) // 3).astype(np.uint16)
    np.savez(tmp_path / "a.npz", train_x=pixels, train_y=labels, class_names=["ant", "sea_horse", "bee"])
    parts = [jpeg(image) for image in pixels[:4]]
    ends = np.cumsum([0, *map(len, parts)])
    glued = np.frombuffer(b"".join(parts), np.uint8)
    np.savez(tmp_path / "b.npz", train_jpeg=glued, train_off=ends, train_y=[0, 0, 1, 1], class_names=["ant", "cat"])
    return [f"{tmp_path / 'a.npz'}:2", str(tmp_path / "b.npz")]


def test_reading_takes_the_first_classes_and_as_many_images_as_said(names, files):
    images, labels = names["read"](files[0], 2)
    assert labels == ["ant", "ant", "sea horse", "sea horse"]
    assert {image.size for image in images} == {(20, 20)}
    assert names["read"](files[1], 40)[1] == ["ant", "ant", "cat", "cat"]


def tiny(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """The script with few small blocks."""
    source = SCRIPT.read_text(encoding="utf-8")
    source = source.replace('"width": 192, "layers": 12', '"width": 192, "layers": 1').replace(
        '"layers": 6', '"layers": 1'
    )
    source = source.replace('"heads": 3, "layers": 4', '"heads": 3, "layers": 1')
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    exec(compile(source, str(SCRIPT), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("frozen", [False, True], ids=["from scratch", "on a ViT"])
def test_the_script_writes_a_model_that_the_classifier_takes(frozen, files, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new"
    arguments = ["--data", *files, "--out", str(out), "--epochs", "2", "--batch-size", "4"]
    if frozen:
        torch.manual_seed(0)
        vit = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=3)
        save_file({name: value.half().contiguous() for name, value in vit.state_dict().items()}, tmp_path / "vit.st")
        arguments += ["--vision-weights", str(tmp_path / "vit.st"), "--image-size", "32"]
    tiny(monkeypatch, arguments)
    printed = capsys.readouterr().out
    assert "10 images, 3 names" in printed
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in printed.splitlines() if "loss" in line]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    weights = str(out / "open_clip_model.safetensors")
    module = CLIPClassifier(str(out / "open_clip_config.json"), weights, class_names=["ant", "cat", "dog"]).eval()
    assert module.image_mean.flatten().tolist() == [0.5] * 3
    with torch.no_grad():
        size = 32 if frozen else 64
        assert module(torch.rand(2, 3, size, size)).shape == (2, 3)
    if frozen:  # the tower is what it was, the projection is not
        stored = load_file(weights)
        block = vit.state_dict()["blocks.0.mlp.fc1.weight"]
        assert torch.equal(stored["visual.transformer.resblocks.0.mlp.c_fc.weight"], block.half())


@torch.no_grad()
def test_a_timm_vit_is_the_same_function_in_open_clips_notation(names):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3).eval()
    for parameter in vit.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    config = {**names["TINY"], "image_size": 224, "layers": 2}
    visual = open_clip.CLIP(embed_dim=192, vision_cfg=config, text_cfg={**names["TEXT"], "layers": 1}).visual.eval()
    visual.load_state_dict({"proj": torch.eye(192), **names["tower_from_timm"](vit.state_dict(), 14)})
    images = torch.randn(2, 3, 224, 224)
    expected = vit.forward_head(vit.forward_features(images), pre_logits=True)
    assert_close(visual(images), expected, rtol=1e-4, atol=1e-4)
