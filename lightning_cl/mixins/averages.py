"""Averages of weights leave alone what methods know: class masks, counters and statistics are no weights.

``torch.optim.swa_utils.AveragedModel``, on which ``WeightAveraging`` is built, averages, copies and swaps what
``parameters()`` and ``buffers()`` of a module give. A continual module gives its own buffers there, such as running
statistics, and not those of the methods; ``named_buffers()``, ``state_dict()`` and ``to()`` have all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_cl.mixins.state import ContinualState

#: Where Lightning's averages keep the weights that are trained, while the average is the checkpoint's ``state_dict``.
CURRENT = "current_model_state"


def own_buffers(module: nn.Module, state: ContinualState | None, recurse: bool = True) -> Iterator[Tensor]:
    """Buffers that the user's module had before any method; all of them before there is a ``state``."""
    for name, buffer in module.named_buffers(recurse=recurse):
        if state is None or name in state.own_buffers:
            yield buffer


def keep_methods_state(module: nn.Module, state: ContinualState, checkpoint: dict[str, Any]) -> None:
    """Put what the methods know now beside averaged weights, in the checkpoint's ``state_dict``."""
    current = checkpoint.get(CURRENT)
    if current is not None:
        names = {name for name, _ in module.named_buffers()} - state.own_buffers
        frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] |= {name: current[name] for name in current if name in names | frozen}
