"""timm models with weights from the hub or from a local file, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn


def build_backbone(
    name: str, pretrained: bool, num_classes: int, checkpoint_path: str | Path | None, kwargs: Mapping[str, Any]
) -> nn.Module:
    """``timm.create_model`` with a fresh head of ``num_classes`` outputs.

    Args:
        name: A name that timm knows, with or without a tag.
        pretrained: Load timm's weights for that name.
        num_classes: Outputs of the head, at least 1.
        checkpoint_path: A local file with weights instead; a head of another size in it is left out.
        kwargs: More arguments of ``timm.create_model``.

    Raises:
        ValueError: If timm does not know the name, or the weights cannot be had or do not fit.
    """
    import timm

    import lightning_cl.models.cifar_resnet  # registers its networks, as the next line does
    import lightning_cl.models.mlp
    import lightning_cl.models.nano_vit  # noqa: F401

    if num_classes < 1:
        raise ValueError(f"`num_classes` is {num_classes}; a head needs at least one output.")
    if ":" not in name and not timm.is_model(name):
        near = get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        raise ValueError(
            f"timm knows no model `{name}`"
            + (f"; did you mean {', '.join(near)}?" if near else "; `timm.list_models()` gives all names.")
        )
    options = dict(kwargs)
    if checkpoint_path is not None:
        path = _existing(checkpoint_path)
        overlay = {**options.pop("pretrained_cfg_overlay", {}), "file": str(path)}
        options |= {"pretrained_cfg_overlay": overlay}
    try:
        net: nn.Module = timm.create_model(
            name, pretrained=pretrained or checkpoint_path is not None, num_classes=num_classes, **options
        )
    except TypeError:
        raise  # an argument that the model does not take
    except Exception as error:
        if checkpoint_path is None and not pretrained:
            raise
        raise ValueError(_no_weights(name, checkpoint_path, error)) from error
    if checkpoint_path is not None:
        _check_fit(net, Path(checkpoint_path), name)
    return net


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"`checkpoint_path` is {path}, but there is no such file; give a .safetensors or .pth file.")
    return path


def _no_weights(name: str, checkpoint_path: str | Path | None, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if checkpoint_path is not None:
        return f"the weights in {checkpoint_path} do not fit `{name}` ({reason}); give the file of this model."
    return (
        f"the pre-trained weights of `{name}` could not be fetched ({type(error).__name__}: {reason}). Without a "
        "network, download the file elsewhere (on the model's page at huggingface.co/timm it is model.safetensors) "
        "and give it as `checkpoint_path`, or set `pretrained=False` for random weights."
    )


def _check_fit(net: nn.Module, path: Path, name: str) -> None:
    """A file in which nothing fits would leave the network random without a word."""
    from timm.models import load_state_dict

    stored = set(load_state_dict(str(path.expanduser())))
    if not stored & set(net.state_dict()):
        raise ValueError(
            f"none of the {len(stored)} tensors in {path} has a name of `{name}` (the first is `{min(stored)}`); give "
            "a file that timm saved for this model."
        )
