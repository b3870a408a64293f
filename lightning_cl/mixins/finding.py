"""Finds the head and the backbone of a foreign module, or says which candidates there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def find_head(module: nn.Module, num_classes: int, path: str | None = None) -> tuple[str, nn.Linear]:
    """The one ``Linear`` that makes the class logits, with its dotted path.

    Looked for in this order: ``path``; a layer with exactly ``num_classes`` outputs outside transformer blocks; the
    classifier of the one timm model in ``module``.

    Raises:
        ValueError: If there is none, or several, or it has fewer outputs than ``num_classes``; candidates are listed.
    """
    if path is not None:
        head = _at(module, path, "head")
        if not isinstance(head, nn.Linear):
            raise ValueError(
                f"`head={path!r}` is a {type(head).__name__}, but a class head must be a `torch.nn.Linear`."
            )
        _check_size(path, head, num_classes)
        return path, head
    every = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear)}
    layers = {name: layer for name, layer in every.items() if not _in_block(name)} or every
    exact = {name: layer for name, layer in layers.items() if layer.out_features == num_classes}
    candidates = exact or _classifiers(module, every)
    if len(candidates) == 1:
        name, head = next(iter(candidates.items()))
        _check_size(name, head, num_classes)
        return name, head
    if candidates:
        raise ValueError(
            f"there are several layers that could make the class logits: {_listing(candidates.items())}; "
            'choose one with `head="..."`.'
        )
    sizes = [layer.out_features for layer in layers.values()]
    small = " All are smaller than the number of classes." if sizes and max(sizes) < num_classes else ""
    raise ValueError(
        f"no `torch.nn.Linear` with {num_classes} outputs (one per class of the stream) was found; the linear layers "
        f"are: {_listing(layers.items())}.{small} Give the model {num_classes} outputs, or name the layer with "
        '`head="..."`.'
    )


def find_vit(module: nn.Module, path: str | None = None) -> tuple[str, VisionTransformer]:
    """The one timm ``VisionTransformer``, with its dotted path.

    Raises:
        ValueError: If there is none or there are several; candidates are listed.
    """
    from timm.models.vision_transformer import VisionTransformer

    example = "timm.create_model('vit_base_patch16_224.augreg_in21k_ft_in1k', pretrained=True)"
    name, found = _find_backbone(
        module,
        path,
        (VisionTransformer,),
        f"prompt methods need a timm `VisionTransformer` (for example `{example}`)",
        "timm VisionTransformers",
        "no timm `VisionTransformer` was found in the module, and prompt methods need one",
        "Use a timm ViT as backbone, or a method that works on any network",
    )
    assert isinstance(found, VisionTransformer)
    return name, found


def find_clip(module: nn.Module, path: str | None = None) -> tuple[str, nn.Module]:
    """The one open_clip model (``CLIP`` or ``CustomTextCLIP``), with its dotted path.

    Raises:
        ValueError: If there is none or there are several; candidates are listed.
    """
    from open_clip import CLIP, CoCa, CustomTextCLIP

    example = "open_clip.create_model('ViT-B-16-quickgelu', pretrained='openai')"
    return _find_backbone(
        module,
        path,
        (CLIP, CustomTextCLIP, CoCa),
        f"CLIP methods need a model of open_clip (for example `{example}`)",
        "open_clip models",
        "no open_clip model was found in the module, and CLIP methods need one",
        "Use `CLIPClassifier`, or a module that holds what `open_clip.create_model` gives",
    )


def _find_backbone(
    module: nn.Module,
    path: str | None,
    kinds: tuple[type[nn.Module], ...],
    needed: str,
    plural: str,
    none: str,
    advice: str,
) -> tuple[str, nn.Module]:
    """The one part of these kinds with its dotted path, or an error in these words."""
    if path is not None:
        found = _at(module, path, "backbone")
        if not isinstance(found, kinds):
            raise ValueError(f"`backbone={path!r}` is a {type(found).__name__}; {needed}.")
        return path, found
    every = {name: m for name, m in module.named_modules() if isinstance(m, kinds)}
    if len(every) == 1:
        return next(iter(every.items()))
    if every:
        raise ValueError(f'there are several {plural}: {", ".join(every)}; choose one with `backbone="..."`.')
    children = ", ".join(f"{name} ({type(m).__name__})" for name, m in module.named_children()) or "none"
    raise ValueError(f"{none}. Its parts are: {children}. {advice}.")


def _at(module: nn.Module, path: str, argument: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError:
        from difflib import get_close_matches

        names = [name for name, _ in module.named_modules() if name]
        near = get_close_matches(path, names, n=3) or names[:10]
        raise ValueError(
            f"`{argument}={path!r}` is not a part of the module; did you mean {', '.join(near)}?"
        ) from None


def _in_block(name: str) -> bool:
    return any(part in {"blocks", "layers", "resblocks", "transformer"} for part in name.split("."))


def _classifiers(module: nn.Module, layers: dict[str, nn.Linear]) -> dict[str, nn.Linear]:
    """Classifiers of timm models; by identity, since two zero-initialised heads are equal."""
    getters = [getattr(m, "get_classifier", None) for m in module.modules()]
    found = [get() for get in getters if callable(get)]
    return {name: layer for name, layer in layers.items() if any(layer is classifier for classifier in found)}


def _check_size(name: str, head: nn.Linear, num_classes: int) -> None:
    if head.out_features < num_classes:
        raise ValueError(
            f"the head `{name}` has {head.out_features} outputs but the stream has {num_classes} classes; "
            f"build the model with `num_classes={num_classes}`."
        )


def _listing(layers: Iterable[tuple[str, nn.Linear]]) -> str:
    return (
        ", ".join(f"{name or '(the module itself)'} ({m.in_features} -> {m.out_features})" for name, m in layers)
        or "none"
    )
