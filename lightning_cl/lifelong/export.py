"""Write a model for other programs: a graph or its weights, with preprocessing and class names in the metadata."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

import lightning_cl
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import replace_file
from lightning_cl.lifelong.configuration import Configuration
from lightning_cl.lifelong.prediction import Answer

#: Key of the description in the metadata of every form.
KEY = "lightning_cl"
#: Name of the only input and output of a graph.
INPUT, OUTPUT = "images", "probabilities"
SUFFIXES = {"torch-export": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}


class Model(Protocol):
    """What is exported."""

    configuration: Configuration
    version: int | None

    @property
    def class_names(self) -> list[str]:
        """By column of the answer."""

    def answer(self) -> Answer:
        """Images to probabilities."""


def export(model: Model, path: Path, form: str = "torch-export") -> Path:
    """Write a model as one file.

    ``"torch-export"`` (``.pt2``, read by ``torch.export.load``) and ``"onnx"`` are graphs from ``(B, C, H, W)`` float
    images to ``(B, K)`` probabilities, for any ``B``; ``"safetensors"`` has the weights only. The metadata of each
    holds JSON under the key ``lightning_cl``: ``class_names``, ``preprocessing``, version and, for the weights, the
    configuration.

    Args:
        model: A :class:`~lightning_cl.lifelong.LearnedModel`.
        path: The file; a form's suffix is put behind a name without one.
        form: One of :data:`SUFFIXES`.

    Returns:
        The file that was written.

    Raises:
        ValueError: If the form is unknown, a package is missing, or the model cannot be traced, or its graph answers
            otherwise than the model; nothing is written then.
    """
    writers: dict[str, Callable[[Answer, Tensor, dict[str, Any]], bytes]] = {
        "torch-export": _torch_export,
        "onnx": _onnx,
        "safetensors": _safetensors,
    }
    if form not in writers:
        raise ValueError(f"`{form}` is no form of export; choose from {', '.join(writers)}.")
    answer, configuration = model.answer(), model.configuration
    look = configuration.preprocessing
    size = (2, look.channels, look.image_size, look.image_size)
    example = torch.rand(size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer(example)  # heads in closed form are solved before a graph is made of them
    description = {
        "class_names": model.class_names,
        "preprocessing": look.to_dict(),
        "input": [None, *size[1:]],
        "version": model.version,
        "lightning_cl": lightning_cl.__version__,
    }
    if form == "safetensors":
        description |= {"configuration": configuration.to_dict(), "columns": answer.columns.tolist()}
    path = path if path.suffix else path.with_suffix(SUFFIXES[form])
    content = writers[form](answer, example, description)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    return path


def _torch_export(answer: Answer, example: Tensor, description: dict[str, Any]) -> bytes:
    program = _traced(answer, example)
    with torch.no_grad():
        check_alike(answer(example), program.module()(example), "torch.export")
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={KEY: json.dumps(description, ensure_ascii=False)})
    return file.getvalue()


def _traced(answer: Answer, example: Tensor) -> Any:
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(answer, (example,), dynamic_shapes={INPUT: {0: batch}}, strict=False)
    except Exception as error:  # of many kinds, for there are many things that cannot be traced
        methods = ", ".join(getattr(getattr(answer.module, "continual", None), "methods", [])) or "no method"
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"this {type(answer.module).__name__} with {methods.replace('lightning_cl.', '')} cannot be traced into a "
            f"graph ({type(error).__name__}: {reason}); export its weights (`--format safetensors`), or serve it with "
            "`lightning_cl.load`."
        ) from error


def _onnx(answer: Answer, example: Tensor, description: dict[str, Any]) -> bytes:
    try:
        import onnx  # type: ignore[import-not-found, unused-ignore]
        import onnxscript  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"export to ONNX needs the package {error.name}; install it with `pip install 'lightning-cl[onnx]'`, or "
            "use `--format torch-export`."
        ) from error
    program = _traced(answer, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(
            program, (example,), input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
        )
    proto = made.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(description, ensure_ascii=False)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def _safetensors(answer: Answer, example: Tensor, description: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    state = {name: value.detach().cpu().clone().contiguous() for name, value in answer.module.state_dict().items()}
    written: bytes = save(state, metadata={KEY: json.dumps(description, ensure_ascii=False), "format": "pt"})
    return written


def check_alike(wanted: Tensor, found: Tensor, what: str) -> None:
    """Refuse a graph that answers otherwise than the model.

    Raises:
        ValueError: If probabilities differ by more than 1e-5.
    """
    distance = float((wanted - found).abs().max())
    if not distance <= 1e-5:
        raise ValueError(
            f"the graph that {what} made answers otherwise than the model (probabilities differ by {distance:.1e}), so "
            "it was not written; export the weights (`--format safetensors`)."
        )
