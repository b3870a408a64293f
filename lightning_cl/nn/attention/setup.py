"""Put prompts into a network of a known family."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.nn.attention.family import AttentionFamily
from lightning_cl.nn.attention.prompted_network import install
from lightning_cl.nn.extension import extend
from lightning_cl.nn.prompted_vit import install_prompts
from lightning_cl.nn.prompts import PromptProvider


def check_prompts(network: Any, provider: PromptProvider, family: AttentionFamily) -> None:
    """Refuse a network that the provider's prompts do not fit; it is left as it is.

    Raises:
        ValueError: If a layer is beyond the depth, tokens cannot join the sequence, or a block cannot be run.
    """
    depth = len(family.blocks(network))
    provider.check_layers(depth)
    if provider.uses_tokens and not family.joins(network):
        raise ValueError(
            f"the {type(network).__name__} ({family.name}) has no sequence that prompt tokens could join and be read "
            'from; use prefixes (`L2P(form="prefix")`, `CODAPrompt`, `DualPrompt`, `OnePrompt`), or a method that '
            "works on any network (replay, class means, regularisation)."
        )
    family.check(network, provider.first_layer(depth))


def put_in_prompts(network: Any, provider: PromptProvider, family: AttentionFamily, head: nn.Module) -> None:
    """Freeze ``network``, all but its head, and let it ask ``provider`` in every pass.

    Args:
        network: Any live network of the family; its class becomes a subclass, its parameters keep their names.
        provider: On the network's device, in its dtype.
        family: See :func:`family_of`.
        head: The layer that makes the class logits, in the network or behind it.

    Raises:
        ValueError: See :func:`check_prompts`.
    """
    check_prompts(network, provider, family)
    family.prepare(network)
    fast = family.mixin(network)
    if fast is None:
        install(network, provider, family, head)
    else:
        extend(network, fast)
        install_prompts(network, provider)
