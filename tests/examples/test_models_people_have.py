"""Every example runs, shortened, through its whole stream; the report shows it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from documented import few_digits
from PIL import Image

from lightning_cl.datamodules import Digits
from lightning_cl.metrics import read_report

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHORT: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    few_digits(monkeypatch)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call an example's ``main`` and return the report that it wrote."""

    def call(name: str, *arguments: Any, **more: Any) -> Any:
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*arguments, **SHORT, **more)
        return read_report(tmp_path)

    return call


def is_whole(report: Any, num_tasks: int) -> bool:
    """Every task was evaluated after itself and after all later ones."""
    expected = torch.ones(num_tasks, num_tasks, dtype=torch.bool).tril()
    return torch.equal(report.evaluated > 0, expected) and torch.equal(report.class_il.isfinite(), expected)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_can_be_read_at_a_glance(path: Path) -> None:
    if not path.stem.startswith("pretrain_"):  # how the shipped weights came about, in full
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.parametrize("name", ["resnet_replay", "timm_vit", "own_datamodule"])
@pytest.mark.usefixtures("short")
def test_an_example_runs(name: str, run: Callable[..., Any]) -> None:
    assert is_whole(run(name), num_tasks=5)


@pytest.mark.usefixtures("short")
def test_a_strangers_module_runs(run: Callable[..., Any]) -> None:
    pytest.importorskip("torchgeo.trainers")
    assert is_whole(run("torchgeo_task"), num_tasks=5)


TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 2},
}


@pytest.mark.usefixtures("short")
def test_an_open_clip_model_runs(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "tiny_clip_of_the_example.json").write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    source = Digits(image_size=16, rgb=True)
    report = run("open_clip_prompts", source, "tiny_clip_of_the_example", None, tasks=5)
    assert is_whole(report, num_tasks=5)
    assert list(report.methods) == ["CPECLIP"]
    assert report.trainable_parameters < report.total_parameters / 10  # the towers are frozen


@pytest.mark.parametrize("layout", ["", "train"], ids=["one folder", "train and test"])
def test_a_folder_of_images_runs(layout: str, run: Callable[..., Any], tmp_path: Path) -> None:
    for split in ("train", "test") if layout else ("",):
        for number, name in enumerate(("apple", "pear", "plum", "quince")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (20, 24), (60 * number, 40 * i, 9)).save(folder / f"{i}.png")
    report = run("image_folder", "images", 2, backbone="vit_nano_omniglot", image_size=16)
    assert is_whole(report, num_tasks=2)
    assert report.class_names == ["apple", "pear", "plum", "quince"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("resnet_replay", 0.4), ("timm_vit", 0.75)])
def test_an_example_learns(name: str, least: float, run: Callable[..., Any]) -> None:
    report = run(name)
    assert report.metrics["class_il/average_accuracy"] > least  # what forgets everything has 0.2
