"""Ships what was learned without the frozen backbone: one safetensors file of a few megabytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import lightning_cl
from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.callbacks.checkpoints.atomic_checkpoint_io import replace_file
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.mixins.base import ContinualMixin, method_names
from lightning_cl.namespace import Callback, LightningModule
from lightning_cl.training.state_growth import head_names

ModuleT = TypeVar("ModuleT", bound=LightningModule)

VERSION = 1
#: Where the description is in the file's metadata.
_KEY = "lightning_cl"


def save_method(path: str | PathLike[str], model: LightningModule) -> None:
    """Write what the methods added to ``model`` or trained in it, and what is needed to check and rebuild it.

    The file holds prompts, keys, prototypes, class masks, the head and every other parameter that is trainable,
    and the module's own buffers (running statistics), as safetensors: nothing in it is unpickled. The frozen parameters
    are left out; a fingerprint tells whether a model has the same. For ten tasks and 100 classes on a ViT-B/16 (344 MB)
    it is 0.7 MB with ``L2P``, 4.1 MB with ``DualPrompt``, 15.7 MB with ``CODAPrompt`` and 0.9 MB with
    ``PrototypeClassifier``. ``FineTuning`` freezes nothing, so its file is as large as the model.

    A file that is there already is replaced as a whole or stays. With several processes, call it on one of them.

    Args:
        path: File to write, for example ``"method.safetensors"``.
        model: A trained module with its methods attached. For a checkpoint, rebuild it first:
            ``save_method(path, restore(checkpoint, model, callbacks))``.

    Raises:
        ValueError: If ``model`` has no method, or a state that is no tensor.
        OSError: If the file cannot be written.
    """
    from safetensors.torch import save

    if not isinstance(model, ContinualMixin):
        raise ValueError(
            f"this {type(model).__name__} has no continual-learning method, so there is nothing to ship; give the "
            "module that was trained, or `restore(checkpoint, model, callbacks)`."
        )
    state, own = model.continual, own_parameters(model)
    # A head that a method replaced is frozen as it was drawn; a fresh model has another, and needs not have the same.
    shipped = state.trained_parameters | head_names(model)
    frozen = {name: p for name, p in own.items() if not p.requires_grad and name not in shipped}
    tensors = shipped_tensors(model, frozen)
    description = {
        "version": VERSION,
        "package": lightning_cl.__version__,
        "model": type(model).__name__,
        "methods": [{"state_key": key, **config} for key, config in zip(state.methods, state.configs, strict=True)],
        "info": state.info.state_dict(),
        "tensors": described(tensors),
        "checksum": checksum(tensors),
        "own_parameters": described(own),
        "frozen": sorted(frozen),
        "fingerprint": checksum(frozen),
    }
    replace_file(Path(path), save(tensors, metadata={_KEY: json.dumps(description), "format": "pt"}))


def load_method(path: str | PathLike[str], model: ModuleT, callbacks: Sequence[Callback] | None = None) -> ModuleT:
    """``model`` with the file's methods attached and their weights loaded, in eval mode.

    Args:
        path: What :func:`save_method` wrote.
        model: A fresh instance with the same frozen weights: built as for training, and with the same pre-trained
            weights loaded.
        callbacks: The methods, in the same order; other callbacks are ignored. ``None``: rebuilt from the file, which
            is possible for the methods that ``lightning_cl.callbacks`` exports (nothing else is imported).

    Returns:
        The same ``model``; ``model.continual.info`` has the class names.

    Raises:
        ValueError: If the file is no method file, damaged or of a newer version; if ``model`` is of another
            architecture or has other frozen weights; if the methods are others; or if tensors are missing or left over.
    """
    description, tensors = read_method(path)
    _check_base(path, model, description)
    info = StreamInfo.from_state_dict(description["info"])
    for method in _methods(path, description["methods"], callbacks):
        method.attach_once(model, info)
    _check_methods(path, model, [method["state_key"] for method in description["methods"]])
    try:
        report = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # tensors of other shapes
        reason = " ".join(str(error).split())
        raise ValueError(f"the tensors in {path} do not fit the model with its methods: {reason}") from error
    missing = sorted(set(report.missing_keys) - set(description["frozen"]))
    if missing or report.unexpected_keys:
        raise ValueError(
            f"the tensors in {path} do not fit the model with its methods: {_listed('missing', missing)}, "
            f"{_listed('left over', report.unexpected_keys)}; use the methods with the arguments of the training."
        )
    model.eval()
    return model


# ---------------------------------------------------------------------- what is in the file


def own_parameters(model: LightningModule) -> dict[str, Tensor]:
    """Parameters that the module had before any method, by name."""
    known = dict(model.named_parameters())
    if not isinstance(model, ContinualMixin) or not hasattr(model, "continual"):
        return dict(known)
    return {name: p for name, p in known.items() if name in model.continual.own_parameters}


def shipped_tensors(model: LightningModule, frozen: Iterable[str]) -> dict[str, Tensor]:
    """All of the state but the frozen parameters, on the CPU, none sharing memory with another.

    Raises:
        ValueError: If a part of the state is no tensor.
    """
    left_out = set(frozen)
    state = {name: value for name, value in model.state_dict().items() if name not in left_out}
    others = [f"`{name}` ({type(value).__name__})" for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"the state of {type(model).__name__} holds {', '.join(others)}, but only tensors can be shipped; ship the "
            "whole checkpoint instead."
        )
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def described(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Type and shape of each tensor, as in ``float32 (10, 768)``."""
    return {name: f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for name, t in tensors.items()}


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of names, types, shapes and values, in the order of the names; the same on every device."""
    digest = hashlib.sha256()
    for name, text in sorted(described(tensors).items()):
        digest.update(f"{name} {text}\0".encode())
        values = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


def read_method(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a method file.

    Raises:
        ValueError: If the file is no method file, damaged, or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {} if text is None else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no method file, or it is damaged ({error}); give a file that `save_method` wrote, complete."
        ) from error
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file, but no method file; give one that `lightning_cl.save_method` wrote."
        )
    description: dict[str, Any] = json.loads(text)
    if description["version"] > VERSION:
        raise ValueError(
            f"{path} is of version {description['version']} (lightning_cl {description['package']}), but this "
            f"lightning_cl {lightning_cl.__version__} reads method files up to version {VERSION}; install a newer one."
        )
    found, written = checksum(tensors), description["checksum"]
    if found != written:
        raise ValueError(
            f"{path} is damaged: its tensors have the hash {found[:12]}, but {written[:12]} was written; copy the file "
            "again."
        )
    return description, tensors


# ---------------------------------------------------------------------- whether it fits


def _check_base(path: Any, model: LightningModule, description: dict[str, Any]) -> None:
    own = own_parameters(model)
    found, wanted = described(own), description["own_parameters"]
    if found != wanted:
        missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        other = [
            f"`{name}`: {wanted[name]} in the file, {found[name]} here"
            for name in sorted(found.keys() & wanted.keys())
            if found[name] != wanted[name]
        ]
        raise ValueError(
            f"{path} is of another architecture ({description['model']}) than this {type(model).__name__}: "
            f"{_listed('missing here', missing)}, {_listed('unknown to the file', unknown)}, "
            f"{_listed('different', other)}; build the model as for training."
        )
    fingerprint = checksum({name: own[name] for name in description["frozen"]})
    if fingerprint != description["fingerprint"]:
        raise ValueError(
            f"{path} belongs to a base model whose frozen weights have the fingerprint "
            f"{description['fingerprint'][:12]}, but this model's have {fingerprint[:12]}; load the pre-trained "
            "weights that it was trained on."
        )


def _methods(
    path: Any, saved: Sequence[Mapping[str, Any]], callbacks: Sequence[Callback] | None
) -> list[ContinualMethod]:
    if callbacks is None:
        return [_rebuilt(path, method) for method in saved]
    methods = [callback for callback in callbacks if isinstance(callback, ContinualMethod)]
    given, wanted = [method.state_key for method in methods], [method["state_key"] for method in saved]
    if given != wanted:
        raise ValueError(
            f"{path} holds {method_names(wanted)}, but `callbacks` has {method_names(given)}; give the methods that it "
            "was trained with, in the same order, or leave `callbacks` out."
        )
    return methods


def _rebuilt(path: Any, saved: Mapping[str, Any]) -> ContinualMethod:
    """A method of the package from its arguments; a name in a file never makes anything else be imported."""
    import lightning_cl.callbacks as exported

    cls = getattr(exported, saved["class"], None) if saved["class"] in exported.__all__ else None
    known = isinstance(cls, type) and issubclass(cls, ContinualMethod) and cls.state_key == saved["state_key"]
    if not known or saved["arguments"] is None:
        reason = "it was made with arguments that are no plain values" if known else "it is none of this package"
        raise ValueError(
            f"{saved['class']} cannot be rebuilt from {path}, since {reason}; pass "
            f"`callbacks=[{saved['class']}(...)]` with the arguments of the training."
        )
    assert isinstance(cls, type)
    method: ContinualMethod = cls(**saved["arguments"])
    return method


def _check_methods(path: Any, model: LightningModule, wanted: list[str]) -> None:
    if not isinstance(model, ContinualMixin) or not hasattr(model, "continual"):
        raise ValueError(
            f"{path} was made from a class that inherits its mixins, so they cannot be attached from the file; let "
            "the model add them first, as its `setup` does."
        )
    if model.continual.methods != wanted:
        raise ValueError(
            f"{path} holds {method_names(wanted)}, but this model has {method_names(model.continual.methods)}; give a "
            "fresh model."
        )


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names[:5]) or 'none'}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
