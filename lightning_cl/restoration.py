"""Rebuilds a trained model for inference from a checkpoint, without a Trainer or a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_cl.callbacks.base import ContinualMethod
from lightning_cl.checkpoint_file import read_checkpoint
from lightning_cl.datamodules.argument_kinds import shown
from lightning_cl.datamodules.task import StreamInfo
from lightning_cl.mixins.base import method_names
from lightning_cl.namespace import Callback, LightningModule, is_overridden, refuse_other_namespace
from lightning_cl.versions import check_callback_versions, check_version

ModuleT = TypeVar("ModuleT", bound=LightningModule)


def restore(
    checkpoint: str | PathLike[str],
    model: ModuleT,
    callbacks: Sequence[Callback] = (),
    map_location: str | torch.device = "cpu",
) -> ModuleT:
    """``model`` with its methods attached and the checkpoint's weights loaded, in eval mode.

    Args:
        checkpoint: Path of a checkpoint that a Trainer wrote on a stream; read with ``weights_only=True``.
        model: A fresh instance, built as for training. A network that it makes in ``configure_model`` is made; so is
            one that it makes in ``setup`` from ``self.trainer.datamodule.num_classes`` or ``class_names``.
        callbacks: The methods that it was trained with, in the same order; other callbacks are ignored.
        map_location: Where to put the weights.

    Returns:
        The same ``model``.

    Raises:
        ValueError: If ``model`` is no module or ``callbacks`` no list; if the checkpoint is damaged or more than data,
            was not made on a stream, with other methods, or by a newer lightning_cl.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"`model` is {shown(model)}; expected an instance of the module that was trained.")
    if not isinstance(callbacks, Sequence):
        raise ValueError(f"`callbacks` is {shown(callbacks)}; expected a list of the methods that it was trained with.")
    refuse_other_namespace(model)
    state = read_checkpoint(Path(checkpoint) if isinstance(checkpoint, PathLike) else checkpoint, map_location)
    return rebuild(state, checkpoint, model, callbacks)


def rebuild(state: Mapping[str, Any], checkpoint: Any, model: ModuleT, callbacks: Sequence[Callback]) -> ModuleT:
    """:func:`restore` from what a checkpoint holds; ``checkpoint`` names it in messages."""
    saved = state.get("lightning_cl")
    if saved is None:
        raise ValueError(
            f"{checkpoint} was not made on a stream of lightning_cl (it holds {', '.join(sorted(state)[:6])}); give a "
            "checkpoint that a Trainer wrote while training on a `ContinualDataModule`."
        )
    check_version(saved, 1, "the run")
    methods = [callback for callback in callbacks if isinstance(callback, ContinualMethod)]
    given = [method.state_key for method in methods]
    if given != saved["methods"]:
        raise ValueError(
            f"{checkpoint} was made with {method_names(saved['methods'])}, but `callbacks` has {method_names(given)}; "
            "give the methods that it was trained with, in the same order."
        )
    info = StreamInfo.from_state_dict(saved["info"])
    check_callback_versions(state.get("callbacks", {}), {method.state_key: method for method in methods})
    _build(model, info, state["state_dict"])
    for method in methods:
        known = state.get("callbacks", {}).get(method.state_key)
        method.prepare_restore(known or {})
        method.attach_once(model, info)
        if known is not None:
            method.load_state_dict(known)
    model.load_state_dict(state["state_dict"])
    model.eval()
    return model


def _build(model: LightningModule, info: StreamInfo, saved: Mapping[str, Tensor]) -> None:
    """Let a module make the network that Lightning's hooks make, unless it has it."""
    if is_overridden("configure_model", model):
        model.configure_model()
    own = model.state_dict()
    built = bool(own) and all(value.shape == saved[name].shape for name, value in own.items() if name in saved)
    if not built and is_overridden("setup", model):
        names = {"info": info, "num_classes": info.num_classes, "class_names": info.class_names}
        model.trainer = SimpleNamespace(datamodule=SimpleNamespace(**names))  # type: ignore[assignment]
        try:
            model.setup("predict")
        finally:
            model.trainer = None
