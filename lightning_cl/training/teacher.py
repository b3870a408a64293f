"""What a copy of a model must hold so that it answers as the model did."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_cl.nn.weights import trained


def weights_and_statistics(module: Any) -> dict[str, Tensor]:
    """Trained parameters, and the buffers that training moves (batch norm's statistics), by name.

    Frozen parameters are shared with the model; buffers of the methods themselves are left out.
    """
    buffers = {name: b for name, b in module.named_buffers() if not name.startswith("continual.")}
    return {**trained(module), **buffers}
