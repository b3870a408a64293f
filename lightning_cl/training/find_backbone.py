"""Find the transformer of a module that prompts are put into."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.nn.attention import AttentionFamily, attention_families, find_networks
from lightning_cl.training.find_modules import part_at


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
    children = ", ".join(f"{name} ({type(m).__name__})" for name, m in within.named_children()) or "none"
    known = ", ".join(family.name for family in attention_families())
    where = "in the module" if path is None else f"at `backbone={path!r}`, a {type(within).__name__}"
    raise ValueError(
        f"no transformer that prompts can be put into was found {where}. Its parts are: {children}. Known are: "
        f"{known}; describe another network in ten lines with `lightning_cl.nn.attention.register_attention`, or use a "
        "method that works on any network (replay, class means, regularisation, distillation)."
    )
