"""CLR: a frozen convolutional network, and behind its convolutions a light re-mapping of each channel for each task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.callbacks.arguments import at_least
from lightning_cl.callbacks.masks.frozen_network import FrozenNetwork
from lightning_cl.callbacks.masks.task_parts import TaskMethod
from lightning_cl.nn.guard import all_rows_but
from lightning_cl.nn.substitution import batch_norms, convolutions
from lightning_cl.nn.weights import key_of, trained

_SIDE = 3  # of a kernel


class ChannelKernels(FrozenNetwork):
    """A kernel for every task and output channel of the convolutions."""

    def __init__(self, module: Any, info: Any, strength: float, skip_pointwise: bool) -> None:
        layers = convolutions(module, skip_pointwise, "CLR")
        super().__init__(module, info, "CLR", affine=True, layers=layers)
        self.strength, kernels = strength, {}
        for name, layer in layers.items():
            identity = layer.weight.new_zeros(info.num_tasks, layer.out_channels, 1, _SIDE, _SIDE)
            identity[..., _SIDE // 2, _SIDE // 2] = 1
            kernels[key_of(name)] = nn.Parameter(identity)
        self.kernels = nn.ParameterDict(kernels)
        self.growing = tuple(f"kernels.{name}" for name in kernels)

    def changed(self, name: str, layer: Any, output: Tensor) -> Tensor:
        """The map of each channel, convolved by the task's kernel of that channel."""
        if name not in self.layers:  # a batch norm
            return output
        kernel = self.kernels[key_of(name)][self.task]
        return F.conv2d(output, kernel.to(output.dtype), padding="same", groups=len(kernel))

    @torch.no_grad()
    def edit_gradients(self, module: Any, optimizer: Any) -> None:
        """Add the gradient of ``strength * sum ||w||``, of each tensor of the task; a tensor of zeros has none."""
        moved = {id(p) for p in trained(module, optimizer).values() if p.grad is not None}
        for parameter, rows in self._own(module) if self.strength else ():
            if id(parameter) in moved:
                own: Tensor = parameter * _wide(rows, parameter) if isinstance(rows, Tensor) else parameter[rows]
                gradient: Any = parameter.grad if isinstance(rows, Tensor) else parameter.grad[rows]  # type: ignore[index]
                gradient += self.strength * own / own.norm().clamp_min(torch.finfo(own.dtype).tiny)

    def _own(self, module: Any) -> Iterator[tuple[nn.Parameter, Any]]:
        """Parameters of the current task, with the rows that are its own."""
        task = self.finished.value
        yield from ((kernels, task) for kernels in self.kernels.values())
        yield from ((p, ...) for norm in batch_norms(module).values() for p in norm.parameters())
        yield from ((p, self.allowed[task, : len(p)]) for p in module.continual_head.parameters())

    def protected(self, module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The kernels of other tasks."""
        return (all_rows_but(kernels, self.finished.value) for kernels in self.kernels.values())


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    """A mask of rows that multiplies a tensor."""
    return rows.view(-1, *[1] * (like.ndim - 1))


@dataclass(eq=False)
class CLR(TaskMethod):
    """Channel-wise lightweight reprogramming (CLR; Ge et al., ICCV 2023, arXiv:2307.11386); task-incremental.

    A pre-trained convolutional network is frozen. Behind each of its convolutions every task has a depth-wise one of
    3 x 3 pixels without bias, ``y = DW_t(conv(x))``, which is the identity at first. A task trains these, batch norms
    of its own (affine and statistics, from the pre-trained ones) and its classes' rows of the head, by the user's loss
    and ``strength`` times the sum of the lengths of all these tensors, as the official code has it. Tasks are
    independent of each other, so that their order does not matter, and earlier answers stay bit for bit.

    Works on modules with ``nn.Conv2d``; needs a pre-trained network, the end of a task and the task of every evaluation
    sample (``ContinualDataModule(task_identity=True)``); keeps nine numbers for each channel and task, and the norms,
    and no sample. A step costs a depth-wise convolution for each convolution.

    Args:
        strength: Of the regulariser, at least 0; the default is the official code's.
        skip_pointwise: Leave convolutions of one pixel as they are, as the official scripts do.

    Raises:
        ValueError: If ``strength`` is negative; when attached, without a convolution, or with classes in several
            tasks; in ``setup``, on a stream without task identity.
    """

    works_on: ClassVar[str] = "networks with nn.Conv2d"
    state_key: ClassVar[str] = "lightning_cl.CLR"
    needs_forward: ClassVar[bool] = False

    strength: float = at_least(0, default=1e-5)
    skip_pointwise: bool = True

    def build(self, pl_module: Any, info: Any) -> ChannelKernels:
        """Kernels that change nothing."""
        return ChannelKernels(pl_module, info, self.strength, self.skip_pointwise)
