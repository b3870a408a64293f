"""Finds the backbone of a foreign module that a method works on, or says which candidates there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_cl.nn.attention import AttentionFamily, attention_families, find_networks
from lightning_cl.training.find_modules import part_at

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def find_attention(module: nn.Module, path: str | None = None) -> tuple[str, Any, AttentionFamily]:
    """Find the one network of a known family of attention, with its dotted path and its family.

    Args:
        module: A LightningModule.
        path: Dotted path of the network, or of a part that holds just one.

    Raises:
        ValueError: If there is none or there are several; says which are known, and what works without.
    """
    within = module if path is None else part_at(module, path, "backbone")
    found = [(f"{path}.{name}".rstrip(".") if path else name, *rest) for name, *rest in find_networks(within)]
    if len(found) == 1:
        name, network, family = found[0]
        return name, network, family
    if found:
        names = ", ".join(name for name, *_ in found)
        raise ValueError(f'there are several networks that take prompts: {names}; choose one with `backbone="..."`.')
    known = ", ".join(family.name for family in attention_families())
    where = "in the module" if path is None else f"at `backbone={path!r}`, a {type(within).__name__}"
    raise ValueError(
        f"no transformer that prompts can be put into was found {where}. Its parts are: {_parts(within)}. Known are: "
        f"{known}; describe another network in ten lines with `lightning_cl.nn.attention.register_attention`, or use a "
        "method that works on any network (replay, class means, regularisation, distillation)."
    )


def find_vit(
    module: nn.Module, path: str | None = None, who: str = "this method needs"
) -> tuple[str, VisionTransformer]:
    """The one timm ``VisionTransformer``, with its dotted path; ``who`` begins what an error says.

    Raises:
        ValueError: If there is none or there are several; candidates are listed.
    """
    from timm.models.vision_transformer import VisionTransformer

    example = "timm.create_model('vit_base_patch16_224.augreg_in21k_ft_in1k', pretrained=True)"
    name, found = _find_backbone(
        module,
        path,
        (VisionTransformer,),
        f"{who} a timm `VisionTransformer` (for example `{example}`)",
        "timm VisionTransformers",
        f"no timm `VisionTransformer` was found in the module, and {who} one",
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
        found = part_at(module, path, "backbone")
        if not isinstance(found, kinds):
            raise ValueError(f"`backbone={path!r}` is a {type(found).__name__}; {needed}.")
        return path, found
    every = {name: m for name, m in module.named_modules() if isinstance(m, kinds)}
    if len(every) == 1:
        return next(iter(every.items()))
    if every:
        raise ValueError(f'there are several {plural}: {", ".join(every)}; choose one with `backbone="..."`.')
    raise ValueError(f"{none}. Its parts are: {_parts(module)}. {advice}.")


def _parts(module: nn.Module) -> str:
    """What a user's module consists of, for a message, without what a refused method has left there."""
    own = (f"{name} ({type(part).__name__})" for name, part in module.named_children() if name != "continual")
    return ", ".join(own) or "none"
