"""Exports answer as the model; what cannot be exported is said, and nothing is written."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from lightning_cl.lifelong.configuration import Configuration
from lightning_cl.lifelong.export import check_alike
from lightning_cl.restoration import rebuild

pytestmark = pytest.mark.filterwarnings("ignore")


def random_images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(count))


def test_a_graph_answers_as_the_model_and_knows_its_classes(model, tmp_path):
    model.merge("three", "two")  # a column that is no class any more
    path = model.export(tmp_path / "digits")
    assert path == tmp_path / "digits.pt2"
    extra = {"lightning_cl": ""}
    graph = torch.export.load(path, extra_files=extra).module()
    known = json.loads(extra["lightning_cl"])
    assert known["class_names"] == ["one", "zero", "two"]
    assert known["preprocessing"] == {**model.configuration.preprocessing.to_dict(), "mean": [0.18], "std": [0.29]}
    for count in (1, 2, 5):
        wanted = model.predict(random_images(count), device="cpu").probabilities
        torch.testing.assert_close(graph(random_images(count)), wanted, rtol=0, atol=1e-5)


def test_weights_are_enough_to_build_the_model_again(model, tmp_path):
    path = model.export(tmp_path / "digits", "safetensors")
    with safe_open(path, "pt") as file:
        known = json.loads(file.metadata()["lightning_cl"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    built = Configuration.from_dict(known["configuration"])
    module = built.build_module(4, fresh=False)
    made = {**model.checkpoint, "state_dict": state}
    again = rebuild(made, path, module, built.build_methods())
    torch.testing.assert_close(again(random_images(3)), model.module(random_images(3)), rtol=0, atol=0)
    assert known["columns"] == [0, 1, 2, 3]


def test_an_onnx_graph_answers_as_the_model(model, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="`pip install 'lightning-cl[onnx]'` for exports to ONNX")
    import onnxruntime

    path = model.export(tmp_path / "digits", "onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    known = json.loads(session.get_modelmeta().custom_metadata_map["lightning_cl"])
    assert known["class_names"] == model.class_names
    for count in (1, 5):
        wanted = model.predict(random_images(count), device="cpu").probabilities
        found = torch.from_numpy(session.run(None, {"images": random_images(count).numpy()})[0])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_what_cannot_be_traced_is_said_and_nothing_is_written(model, tmp_path):
    model.module.net.norm = Untraceable()
    with pytest.raises(ValueError, match=r"with PrototypeClassifier cannot be traced.*--format safetensors"):
        model.export(tmp_path / "digits")
    with pytest.raises(ValueError, match="`pickle` is no form of export"):
        model.export(tmp_path / "digits", "pickle")
    assert list(tmp_path.glob("digits*")) == []
    with pytest.raises(ValueError, match=r"differ by 1\.0e-04"):
        check_alike(torch.zeros(2), torch.full((2,), 1e-4), "x")
