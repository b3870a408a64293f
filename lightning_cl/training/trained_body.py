"""The trained weights of a module that are not the class head's."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_cl.nn.weights import trained


def trained_body(module: Any, optimizer: Any = None) -> dict[str, nn.Parameter]:
    """Trained parameters by name, without those of the class head, where there is one.

    Args:
        module: A LightningModule with methods.
        optimizer: Only those that it moves; ``None``: all.
    """
    head = {id(p) for p in module.continual_head.parameters()} if module.continual.head_path else set()
    return {name: p for name, p in trained(module, optimizer).items() if id(p) not in head}
