"""open_clip models by name, file or configuration, with the weights asked for or an error that says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

ModelSpec = str | dict[str, Any]
_SCHEMAS = ("hf-hub:", "local-dir:")


def build_clip(model: ModelSpec, pretrained: str | None) -> tuple[Any, dict[str, Any]]:
    """An open_clip model in eval mode, and its configuration.

    Args:
        model: A name that open_clip knows, ``"local-dir:..."`` or ``"hf-hub:..."``, the path of a JSON file, or the
            configuration itself (``embed_dim``, ``vision_cfg``, ``text_cfg``; or these under ``model_cfg``).
        pretrained: A tag of open_clip or the path of a file; ``None``: random weights.

    Raises:
        ValueError: If the model or the tag is unknown, the weights cannot be had or do not fit, or the model's
            activation is not that of the weights.
    """
    import open_clip

    if isinstance(model, str) and not model.endswith(".json"):
        return _by_name(open_clip, model, pretrained)
    stored = _read(model) if isinstance(model, str) else dict(model)
    config = dict(stored.get("model_cfg", stored))
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    if missing:
        raise ValueError(f"the configuration of the CLIP model has no {sorted(missing)}; give one of open_clip's kind.")
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    net = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    preprocess = stored.get("preprocess_cfg", {})
    for name, value in (("image_mean", preprocess.get("mean")), ("image_std", preprocess.get("std"))):
        if value is not None:
            setattr(net.visual, name, tuple(value))
    if pretrained is not None:
        path = _existing(pretrained, "this configuration")
        try:
            open_clip.load_checkpoint(net, str(path))
        except Exception as error:
            raise ValueError(f"the weights in {path} do not fit the configuration ({_first_line(error)}).") from error
    return net.eval(), config


def _by_name(open_clip: Any, name: str, pretrained: str | None) -> tuple[Any, dict[str, Any]]:
    bare = not name.startswith(_SCHEMAS)
    if bare:
        _check_name(open_clip, name, pretrained)
    elif pretrained is not None:
        raise ValueError(f"`model={name!r}` brings its own weights; leave `pretrained` out (None).")
    try:
        net = open_clip.create_model(name, pretrained=pretrained, require_pretrained=pretrained is not None or not bare)
        config = open_clip.get_model_config(name)
    except Exception as error:
        what = f"of `{name}`" if pretrained is None else f"`{pretrained}` of `{name}`"
        raise ValueError(
            f"the weights {what} could not be had ({type(error).__name__}: {_first_line(error)}). Without a network, "
            "download the file elsewhere (on the model's page at huggingface.co it is open_clip_model.safetensors) and "
            "give its path as `pretrained`; `pretrained=None` (null in YAML) makes random weights."
        ) from error
    return net.eval(), dict(config)


def _check_name(open_clip: Any, name: str, pretrained: str | None) -> None:
    """Refuse what open_clip would only find out after a download, or only warn about."""
    known = open_clip.list_models()
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`open_clip.list_models()` gives all names."
        raise ValueError(f"open_clip knows no model `{name}`; {hint}")
    if pretrained is None:
        return
    from open_clip.pretrained import get_pretrained_cfg

    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = get_pretrained_cfg(name, pretrained)
    if not tag:
        if not Path(pretrained).expanduser().is_file():
            raise ValueError(
                f"`pretrained` is {pretrained!r}, which is neither a tag of `{name}` (these are "
                f"{', '.join(tags) or 'none'}) nor a file; give one of these."
            )
    elif bool(tag.get("quick_gelu", False)) != bool(open_clip.get_model_config(name).get("quick_gelu", False)):
        other = name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"
        raise ValueError(
            f"the weights `{pretrained}` were trained with another activation than `{name}` has, which makes features "
            f"worse without a word; use `model={other!r}`."
        )


def image_statistics(net: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels in [0, 1] that the model was trained with; CLIP's where it does not say."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean, std = getattr(net.visual, "image_mean", None), getattr(net.visual, "image_std", None)
    return tuple(mean or OPENAI_DATASET_MEAN), tuple(std or OPENAI_DATASET_STD)


def tokenizer_for(model: ModelSpec, config: Mapping[str, Any]) -> Any:
    """The model's tokenizer, from open_clip."""
    import open_clip

    text = config["text_cfg"]
    if isinstance(model, str) and not model.endswith(".json"):
        return open_clip.get_tokenizer(model)
    length = text.get("context_length", 77)
    if text.get("hf_tokenizer_name"):
        from open_clip.tokenizer import HFTokenizer

        return HFTokenizer(text["hf_tokenizer_name"], context_length=length, **text.get("tokenizer_kwargs", {}))
    return open_clip.SimpleTokenizer(context_length=length)


def _read(path: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(_existing(path, "the model").read_text(encoding="utf-8"))
    return stored


def _existing(path: str, what: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise ValueError(f"there is no file {path!r} for {what}; give the path of a file that exists.")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
