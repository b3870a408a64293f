"""The configuration of a new model from a few options, as the command line has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from lightning_cl.lifelong.configuration import Configuration, Part
from lightning_cl.lifelong.preprocessing import Preprocessing

#: What a new model is without any option: it keeps no image, trains nothing and needs no network.
DEFAULT_BACKBONE = "vit_nano_omniglot"
DEFAULT_METHOD: Part = {"class_path": "FeCAM", "init_args": {"covariance": "shared"}}


def configured(
    method: Sequence[str] = (),
    backbone: str | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    config: str | Path | None = None,
    **options: Any,
) -> Configuration:
    """The configuration of a new model.

    Args:
        method: Names of methods; none: class means with one covariance on the frozen backbone.
        backbone: A name that timm knows; ``None``: the one in the package, for small grey pictures.
        weights: A local file with its weights.
        image_size: Height and width in pixels, if others than the backbone was trained with.
        config: A YAML file with ``model``, ``methods`` (``class_path`` and ``init_args``, as in a run's), and other
            fields of :class:`Configuration`.
        options: Further fields; ``None``: the default.

    Raises:
        ValueError: If the file holds something else, or the model cannot be built.
    """
    given = _read(config) if config is not None else {}
    model: Part = given.pop("model", None) or _image_classifier(backbone, weights)
    methods = (
        [{"class_path": name, "init_args": {}} for name in method] or given.pop("methods", None) or [DEFAULT_METHOD]
    )
    fields = {**given, **{name: value for name, value in options.items() if value is not None}}
    try:
        configuration = Configuration(model, methods, Preprocessing(1), **fields)
    except TypeError as error:
        raise ValueError(f"{config} has a field that no model folder knows ({error}); see `Configuration`.") from error
    module = configuration.build_module(1, fresh=False)
    configuration.build_methods()  # wrong names and arguments are said now
    configuration.preprocessing = Preprocessing.of(module, image_size)
    return configuration


def _image_classifier(backbone: str | None, weights: str | None) -> Part:
    options: dict[str, Any] = {"backbone": backbone or DEFAULT_BACKBONE, "checkpoint_path": weights}
    return {"class_path": "lightning_cl.models.ImageClassifier", "init_args": options}


def _read(config: str | Path) -> dict[str, Any]:
    path = Path(config)
    if not path.is_file():
        raise ValueError(f"there is no configuration {str(path)!r}; give a YAML file.")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; write `model:`, `methods:` and other fields of a model folder.")
    return content
