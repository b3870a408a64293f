"""Frozen layers whose weights are shared out over the processes and gathered for the moment in which they are used.

FSDP2 (``torch.distributed.fsdp.fully_shard``) on single layers: what is trained stays whole on every process and is
DDP's business, so that losses, guards and optimisers see ordinary parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def frozen_linears(blocks: Iterable[nn.Module]) -> list[nn.Linear]:
    """The ``Linear`` layers of transformer blocks, which hold all but a thousandth of their weights.

    Raises:
        ValueError: If one of them is trained, or is no plain ``Linear`` (an adapter, a quantised layer).
    """
    found: list[nn.Linear] = []
    for index, block in enumerate(blocks):
        for name, layer in block.named_modules():
            if not isinstance(layer, nn.Linear):
                continue
            if any(parameter.requires_grad for parameter in layer.parameters()):
                raise ValueError(
                    f"`{name}` in block {index} is trained, but only a frozen backbone can be shared out over "
                    "processes; use a method that freezes it (prompts, class means), or leave `ShardedBackbone` out."
                )
            if type(layer) is not nn.Linear:
                raise ValueError(
                    f"`{name}` in block {index} is a {type(layer).__name__}, but only plain `torch.nn.Linear` layers "
                    "can be shared out over processes; leave `ShardedBackbone` out."
                )
            found.append(layer)
    return found


def shard_linear(layer: nn.Linear, mesh: Any) -> None:
    """Keep only this process's rows of a frozen layer; its state dict still holds, and takes, the whole weights.

    Reading the state dict is a collective operation: all processes must do it.

    Args:
        layer: A layer without gradient, the same on every process; its class becomes a subclass.
        mesh: One-dimensional ``DeviceMesh`` of the processes.
    """
    from torch.distributed.fsdp import fully_shard

    fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    layer.register_state_dict_post_hook(_whole)
    layer.register_load_state_dict_pre_hook(_share)


def local_numel(module: nn.Module) -> int:
    """Number of weights that this process keeps of ``module``; of a whole module that of all of them."""
    return sum(_local(parameter).numel() for parameter in module.parameters())


def _local(parameter: Tensor) -> Tensor:
    local: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local


def _whole(layer: nn.Module, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    """Checkpoints of sharded and whole modules are the same."""
    for name, _parameter in layer.named_parameters(recurse=False):
        value = state_dict[prefix + name]
        if hasattr(value, "full_tensor"):
            state_dict[prefix + name] = value.detach().full_tensor().cpu()  # one layer at a time on the device


def _share(layer: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    for name, parameter in layer.named_parameters(recurse=False):
        value = state_dict.get(prefix + name)
        if isinstance(parameter, DTensor) and value is not None and not isinstance(value, DTensor):
            whole = value.to(device=parameter.device, dtype=parameter.dtype)
            if whole.shape == parameter.shape:  # else PyTorch's own error is the clearer one
                state_dict[prefix + name] = distribute_tensor(whole, parameter.device_mesh, parameter.placements)


def process_mesh(device: torch.device) -> Any:
    """All processes in a row.

    Raises:
        ImportError: If PyTorch is too old.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"PyTorch {torch.__version__} has no `torch.distributed.fsdp.fully_shard`; sharing a backbone out needs "
            "2.6 or newer."
        ) from error
    return init_device_mesh(device.type, (torch.distributed.get_world_size(),))
