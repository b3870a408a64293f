"""Finds the head and the stages of a foreign module, or says which candidates there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from torch import nn

from lightning_cl.nn.head_layer import as_linear, num_outputs, weight_layer, with_rows

#: In the names of heads that only help to train.
_AUXILIARY = re.compile(r"(^|[._])(aux|dist|distill|distillation|auxiliary)\w*([._]|$)|(^|\.)aux\d*", re.IGNORECASE)

#: Names of the stages of ResNets, of hierarchical networks, and of transformers (the last: of Hugging Face), in the
#: order in which they are tried.
_STAGES = [re.compile(rf"(^|\.){name}$") for name in (r"layer[1-9]", r"stages\.\d+", r"blocks\.\d+", r"layers?\.\d+")]


def find_head(module: nn.Module, num_classes: int, path: str | None = None) -> tuple[str, nn.Linear]:
    """The one layer that makes the class logits, with its dotted path; one that is no ``Linear`` can be read as one.

    Looked for in this order: ``path``; a ``Linear`` with exactly ``num_classes`` outputs outside transformer blocks
    (beside auxiliary ones, the one that is not named so); the classifier of the one timm model in ``module``; another
    layer with a row of weights for each class, see :func:`~lightning_cl.nn.head_layer.weight_layer`.

    Raises:
        ValueError: If there is none, or several, or it has fewer outputs than ``num_classes``; candidates are listed.
    """
    if path is not None:
        path, head = _within(*_last(path, part_at(module, path, "head")), num_classes)
        if weight_layer(head) is None and not with_rows(head, num_classes):
            raise ValueError(
                f"`head={path!r}` is a {type(head).__name__}, but a class head must be a `torch.nn.Linear`, or another "
                "layer with a row of weights for each class."
            )
        _check_size(path, head, num_classes)
        return path, as_linear(head)
    every = _linears(module)
    layers = {name: layer for name, layer in every.items() if not _in_block(name)} or every
    exact = {name: layer for name, layer in layers.items() if num_outputs(layer) == num_classes}
    candidates = exact or _classifiers(module, every) or _others(module, num_classes)
    if len(candidates) > 1:
        candidates = {name: m for name, m in candidates.items() if not _AUXILIARY.search(name)} or candidates
    if len(candidates) == 1:
        name, head = next(iter(candidates.items()))
        _check_size(name, head, num_classes)
        return name, as_linear(head)
    if candidates:
        raise ValueError(
            f"there are several layers that could make the class logits: {_listing(candidates.items())}; "
            'choose one with `head="..."`.'
        )
    sizes = [num_outputs(layer) for layer in layers.values()]
    small = " All are smaller than the number of classes." if sizes and max(sizes) < num_classes else ""
    raise ValueError(
        f"no `torch.nn.Linear` with {num_classes} outputs (one per class of the stream) was found; the linear layers "
        f"are: {_listing(layers.items())}.{small} Give the model {num_classes} outputs, or name the layer with "
        '`head="..."`.'
    )


def find_auxiliary_heads(module: nn.Module, path: str, num_classes: int) -> list[nn.Module]:
    """Layers beside the head ``path`` that make class logits, too, as those of GoogLeNet and of distilled models."""
    every = {**_linears(module), **_others(module, num_classes)}
    return [
        layer
        for name, layer in every.items()
        if num_outputs(layer) == num_classes and _AUXILIARY.search(name) and not f"{name}.".startswith(f"{path}.")
    ]


def enclosing(module: nn.Module, path: str) -> list[nn.Module]:
    """All modules that hold the part ``path``, from the innermost to ``module`` itself."""
    names = path.split(".")
    return [module.get_submodule(".".join(names[:depth])) for depth in reversed(range(len(names)))]


def around(module: nn.Module, parts: Sequence[nn.Module]) -> nn.Module:
    """The smallest part of ``module``, or all of it, that has all of these parts."""
    wanted = {id(part) for part in parts}
    sizes = {m: [id(part) for part in m.modules()] for m in module.modules()}
    return min((m for m, held in sizes.items() if wanted <= set(held)), key=lambda m: len(sizes[m]))


def find_stages(module: nn.Module, paths: Sequence[str] | None = None) -> tuple[str, ...]:
    """Dotted paths of the stages of a network that give maps, in order; see :func:`stages_in`.

    Raises:
        ValueError: If a given path is no part of the module, none is found, or the network reads no images.
    """
    if paths is not None:
        for path in paths:
            part_at(module, path, "stages")
        return tuple(paths)
    if _reads_words(module):
        raise ValueError(
            f"this {type(module).__name__} has an embedding and no convolution, so it reads words, and its stages give "
            'no maps of an image; name layers that give maps `(B, C, H, W)` with `stages=["...", "..."]`, or leave the '
            "stages out with `spatial=0`."
        )
    if found := stages_in(module):
        return found
    raise ValueError(
        f"no stages were found in this {type(module).__name__} (looked for `layer1`, `stages.0`, `blocks.0`); name the "
        'layers whose maps or tokens are compared with `stages=["...", "..."]`.'
    )


def stages_in(module: nn.Module) -> tuple[str, ...]:
    """Dotted paths of the stages of a network, in order: ``layer1`` to ``layer4``, ``stages.0`` ..., ``blocks.0`` ...

    Those that are named ``layer.0`` or ``layers.0`` are taken if all are blocks of one class, as in a transformer.
    Empty: there are none.
    """
    parts = dict(module.named_modules())
    for kind in _STAGES:
        found = tuple(name for name in parts if kind.search(name))
        if found and (kind is not _STAGES[-1] or _alike([parts[name] for name in found])):
            return found
    return ()


def _reads_words(module: nn.Module) -> bool:
    kinds = {type(m) for m in module.modules()}
    return any(issubclass(k, nn.Embedding) for k in kinds) and not any(issubclass(k, nn.Conv2d) for k in kinds)


def _alike(parts: Sequence[nn.Module]) -> bool:
    """Whether all are of one class and have parts: a list of layers that are called one after another has others."""
    return len({type(part) for part in parts}) == 1 and any(True for _ in parts[0].children())


def part_at(module: nn.Module, path: str, argument: str) -> nn.Module:
    """What is at a dotted path that a user gave.

    Raises:
        ValueError: If there is nothing; near names are listed.
    """
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


def _last(path: str, layer: nn.Module) -> tuple[str, nn.Module]:
    """The last layer with parameters of an ``nn.Sequential``, unless it has no other one; another layer itself."""
    parts = [(name, part) for name, part in layer.named_children() if any(True for _ in part.parameters())]
    single = weight_layer(layer) is not None and parts and parts[-1][1] is not list(layer.children())[-1]
    if not isinstance(layer, nn.Sequential) or not parts or single:
        return path, layer
    return _last(f"{path}.{parts[-1][0]}".removeprefix("."), parts[-1][1])


def _within(path: str, layer: nn.Module, num_classes: int) -> tuple[str, nn.Module]:
    """The one layer in a module of the user's own that has as many outputs; else the module itself."""
    if weight_layer(layer) is not None:
        return path, layer
    every = {**_linears(layer), **_others(layer, num_classes)}
    found = [(f"{path}.{name}", m) for name, m in every.items() if name and num_outputs(m) == num_classes]
    return found[0] if len(found) == 1 else (path, layer)


def _linears(module: nn.Module) -> dict[str, nn.Module]:
    """Linear layers and, in the place of those that are wrapped as by PEFT, what is around them."""
    wrapped = {name: m for name, m in module.named_modules() if isinstance(getattr(m, "base_layer", None), nn.Linear)}
    within = tuple(f"{name}." for name in wrapped)
    plain = {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear) and not name.startswith(within)}
    return {**plain, **wrapped}


def _others(module: nn.Module, num_classes: int) -> dict[str, nn.Module]:
    """Layers that are no linear ones, with a row of weights for each class; with the pooling behind a convolution."""
    found: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Sequential) or num_outputs(layer) != num_classes:
            continue
        parent = name.rpartition(".")[0]
        around = module.get_submodule(parent)
        if isinstance(around, nn.Sequential) and around[-1] is not layer and weight_layer(around) is layer:
            found[parent] = around
        else:
            found[name] = layer
    return found


def _classifiers(module: nn.Module, layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Classifiers of timm models; by identity, since two zero-initialised heads are equal."""
    getters = [getattr(m, "get_classifier", None) for m in module.modules()]
    found = [get() for get in getters if callable(get)]
    return {name: layer for name, layer in layers.items() if any(layer is classifier for classifier in found)}


def _check_size(name: str, head: nn.Module, num_classes: int) -> None:
    if num_outputs(head) < num_classes:
        raise ValueError(
            f"the head `{name}` has {num_outputs(head)} outputs but the stream has {num_classes} classes; "
            f"build the model with `num_classes={num_classes}`."
        )


def _listing(layers: Iterable[tuple[str, nn.Module]]) -> str:
    sizes = ((name, as_linear(layer)) for name, layer in layers)
    return (
        ", ".join(f"{name or '(the module itself)'} ({m.in_features} -> {m.out_features})" for name, m in sizes)
        or "none"
    )
