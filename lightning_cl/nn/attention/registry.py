"""The known families of networks that take prompts; users add theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from lightning_cl.nn.attention.family import AttentionFamily

_FAMILIES: list[AttentionFamily] = []


def register_attention(family: type[AttentionFamily]) -> type[AttentionFamily]:
    """Add a family; the one that was added last is asked first. Use it as a decorator.

    Raises:
        ValueError: If it names no networks.
    """
    if not family.networks:
        raise ValueError(f"{family.__name__} names no networks; set `networks` to the classes that it describes.")
    _FAMILIES.insert(0, family())
    return family


def attention_families() -> tuple[AttentionFamily, ...]:
    """List all families in the order in which they are asked."""
    return tuple(_FAMILIES)


def family_of(network: nn.Module) -> AttentionFamily | None:
    """Find the family of a network, by its class and those it inherits from; ``None``: none is known."""
    classes = type(network).__mro__
    known = {*classes, *(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)}
    return next((family for family in _FAMILIES if not known.isdisjoint(family.networks)), None)


def find_networks(module: nn.Module) -> Iterator[tuple[str, Any, AttentionFamily]]:
    """Find networks of known families in a module, with their dotted paths; not those within another one."""
    outer: list[str] = []
    for name, part in module.named_modules():
        if any(name.startswith(f"{path}.") if path else True for path in outer):
            continue
        family = family_of(part)
        if family is not None:
            outer.append(name)
            yield name, part, family
