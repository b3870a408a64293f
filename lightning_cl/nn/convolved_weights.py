"""Make the weights of a task out of those of another by small convolutions over the weight matrix (ConTraCon)."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.adapters.sites import ending
from lightning_cl.nn.substitution import weight_layers

#: Names of linear layers that make queries, keys and values, each with how many of these it makes.
PROJECTIONS = {"qkv": 3, "in_proj": 3, "kv": 2} | dict.fromkeys(
    ("q", "k", "v", "q_proj", "k_proj", "v_proj", "query", "key", "value", "q_lin", "k_lin", "v_lin", "to_q"), 1
)


def convolved(weight: Tensor, kernels: Tensor, biases: Tensor, gates: Tensor) -> Tensor:
    """``Conv_h(W_h) + sigmoid(a_h) W_h`` of every group of rows ``h`` (arXiv:2308.11357); of the weight's shape.

    Args:
        weight: ``(O, D)``; its rows are in ``H`` groups of equal size.
        kernels: ``(H, k, k)``, each for one group, with as many places as the group has (stride 1, zeros around it).
        biases: ``(H,)``, added to all of a group.
        gates: ``(H,)`` the ``a``.
    """
    matrices = weight.view(1, len(kernels), -1, weight.shape[1])
    mixed = F.conv2d(matrices, kernels[:, None], biases, padding="same", groups=len(kernels))
    return (mixed + gates.sigmoid()[:, None, None] * matrices).view_as(weight)


def row_groups(module: nn.Module, name: str, heads: int | None = None) -> int:
    """In how many groups the rows of a linear layer are: for each head of an attention and each of what it makes.

    Args:
        module: That holds the layer.
        name: Its dotted path.
        heads: Of the attention; that of the layer's parent when ``None``, and 1 if it has none.

    Raises:
        ValueError: If the rows cannot be in so many groups.
    """
    path, _, own = name.rpartition(".")
    parent, layer = module.get_submodule(path), module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    known = (getattr(parent, key, None) for key in ("num_heads", "num_attention_heads", "n_heads"))
    found = next((value for value in known if isinstance(value, int)), 1) if heads is None else heads
    groups = found * PROJECTIONS.get(own, 1)
    if layer.out_features % groups:
        raise ValueError(
            f"the {layer.out_features} rows of `{name}` are no {groups} groups of one size; give the number of heads "
            "that it has with `heads`, or 1."
        )
    return groups


class KernelBank(nn.Module):
    """Kernels, biases and gates of a layer for each task, drawn as those of a convolution; gates are 1.

    Args:
        num_tasks: Tasks, ``T``.
        groups: Groups of rows, ``H``.
        size: Of a kernel, ``k``.
        like: Of what dtype and device.
    """

    growing = ("kernels", "biases", "gates")

    def __init__(self, num_tasks: int, groups: int, size: int, like: Tensor) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size * size)  # of torch's convolution with one input channel, for both
        drawn = (torch.empty(num_tasks, groups, *shape).uniform_(-bound, bound) for shape in ((size, size), ()))
        self.kernels, self.biases = (nn.Parameter(values.to(like)) for values in drawn)
        self.gates = nn.Parameter(like.new_ones(num_tasks, groups))

    def forward(self, weight: Tensor, task: int) -> Tensor:
        """The weight of a task, made from that of another one."""
        return convolved(weight, self.kernels[task], self.biases[task], self.gates[task])

    def idle(self) -> Tensor:
        """A zero with a gradient of zero for all of the bank: every process waits for that of every parameter."""
        return torch.stack([0 * parameter.sum() for parameter in self.parameters()]).sum()


def chosen_layers(module: Any, at: str | None, who: str) -> dict[str, nn.Linear]:
    """Linear layers by name: whose names end as ``at`` says; else those that make queries, keys and values; else all.

    Raises:
        ValueError: If there is none.
    """
    known = weight_layers(module, module.continual_head)
    linear = {name: layer for name, layer in known.items() if isinstance(layer, nn.Linear)}
    usual = {name: layer for name, layer in linear.items() if name.rpartition(".")[2] in PROJECTIONS}
    named = {n: m for n, m in linear.items() if at is not None and re.fullmatch(ending(at), n)}
    found = (usual or linear) if at is None else named
    if not found:
        raise ValueError(
            f"{type(module).__name__} trains no `nn.Linear` besides its head whose weights {who} could convolve"
            f"{'' if at is None else f' and whose name ends as `at={at!r}` says'}; its linear layers are "
            f"{', '.join([*linear][:6]) or 'missing'}: name some with `at`, or use another method."
        )
    return found
