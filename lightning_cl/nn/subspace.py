"""Remember the directions that a layer's inputs span, and keep its weights from changing along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cl.nn.load_hooks import after_load
from lightning_cl.nn.weights import StepEdit

#: Directions of a layer's inputs (columns of its weight) or of its outputs (rows).
Side = Literal["in", "out"]


class SubspaceMemory(nn.Module):
    """An orthonormal basis of the inputs that a layer has seen (GPM, arXiv:2103.09762; CUBER, InfLoRA, CoSO).

    A step without a component in it leaves the layer's outputs on these inputs as they are.

    Args:
        width: Size of an input, ``D``; of a convolution ``in_channels * kernel height * kernel width``.
    """

    directions: Tensor
    rank: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(width, width))  # of one size, so that any checkpoint fits
        self.register_buffer("rank", torch.zeros((), dtype=torch.long))
        self.size = 0  # mirrors `rank` without a host sync
        after_load(self, "_read_size")

    def _read_size(self) -> None:
        self.size = int(self.rank)

    @property
    def basis(self) -> Tensor:
        """``(D, size)`` orthonormal columns."""
        return self.directions[:, : self.size]

    def extend(self, inputs: Tensor, energy: float, crossing: bool = False) -> int:
        """Add the strongest new directions of ``(N, D)`` inputs; how many there were.

        Args:
            inputs: As :func:`layer_inputs` gives them; those of all processes.
            energy: Share of ``sum |x|^2`` that the basis is to hold, in [0, 1].
            crossing: Take the direction, too, with which the share reaches ``energy`` (GPM from the second task on,
                CUBER); else only those before it (GPM's first task, CoSO).
        """
        rows = inputs.detach().double()
        return self.extend_gram(rows.T @ rows, energy, crossing)

    @torch.no_grad()
    def extend_gram(self, gram: Tensor, energy: float, crossing: bool = False) -> int:
        """Extend the basis by ``(D, D)`` ``sum x x^T``, which adds up over batches; see :meth:`extend`."""
        gram, old = gram.to(self.directions.device, torch.float64), self.basis.double()
        values, vectors = self.outside(gram)
        total = gram.trace()
        held = (1 - values.sum() / total + values.cumsum(0) / total).tolist() if total > 0 else []
        count = _taken(held, energy, crossing, float(1 - values.sum() / total) if total > 0 else 1.0)
        solid = int((values > 1e-12 * total).sum())  # no direction of rounding errors
        count = min(count, solid, len(gram) - self.size)
        if count:
            new = vectors[:, :count]
            self.append(torch.linalg.qr(new - old @ (old.T @ new)).Q)  # the second time removes what rounding left
        return count

    def append(self, directions: Tensor) -> None:
        """Add ``(D, n)`` orthonormal columns outside the basis."""
        self.directions[:, self.size : self.size + directions.shape[1]] = directions.to(self.directions)
        self.size += directions.shape[1]
        self.rank.fill_(self.size)

    @torch.no_grad()
    def new_directions(self, gram: Tensor, count: int) -> Tensor:
        """``(D, count)`` orthonormal columns: the strongest directions outside the basis; zeros where there are none.

        Args:
            gram: ``(D, D)`` ``sum x x^T``.
            count: Columns, ``r``.
        """
        gram, old = gram.to(self.directions.device, torch.float64), self.basis.double()
        values, vectors = self.outside(gram)
        count = min(count, len(gram))
        new = vectors[:, :count] - old @ (old.T @ vectors[:, :count])
        solid = values[:count] > 1e-12 * gram.trace()
        found = torch.zeros(len(gram), count, dtype=torch.float64, device=gram.device)
        found[:, solid] = torch.linalg.qr(new[:, solid]).Q
        return found.to(self.directions.dtype)

    def outside(self, gram: Tensor) -> tuple[Tensor, Tensor]:
        """``(D,)`` falling energies and ``(D, D)`` directions (columns) of what lies outside the basis; float64."""
        gram, old = gram.to(self.directions.device, torch.float64), self.basis.double()
        left = gram - old @ (old.T @ gram)
        left = left - (left @ old) @ old.T
        values, vectors = torch.linalg.eigh((left + left.T) / 2)
        return values.flip(0).clamp_min(0), vectors.flip(1)

    def project(self, gradient: Tensor, side: Side = "in") -> Tensor:
        """What of a gradient (or step) has no component in the basis.

        Args:
            gradient: ``(out, ...)`` of the weight's shape; a convolution's is flattened to ``(out, D)`` for ``"in"``.
            side: ``"in"``: ``g - g U U^T`` with ``D`` inputs; ``"out"``: ``g - U U^T g`` with ``D`` outputs.
        """
        if not self.size:
            return gradient
        basis, flat = self.basis.to(gradient.dtype), gradient.flatten(1)
        if side == "in":
            return (flat - (flat @ basis) @ basis.T).view_as(gradient)
        return (flat - basis @ (basis.T @ flat)).view_as(gradient)

    def extra_repr(self) -> str:
        """How much is taken."""
        return f"{self.size} of {len(self.directions)} directions"


class Projector(Protocol):
    """What a step may not do; a memory of inputs."""

    size: int

    def project(self, gradient: Tensor, side: Side = "in") -> Tensor:
        """What is left of a gradient or step."""
        ...


class StepProjection(StepEdit):
    """Projects every optimiser step: with momentum or Adam a projected gradient alone does not keep the step outside.

    Args:
        weights: Parameters.
        memories: The memory of each; they may grow later.
        side: Of the weights.
    """

    def __init__(self, weights: Sequence[Tensor], memories: Sequence[Projector], side: Side = "in") -> None:
        super().__init__(weights)
        self.memories, self.side = list(memories), side

    @torch.no_grad()
    def edit(self, *_: Any) -> None:
        """Take the remembered directions out of what the step did."""
        for weight, before, memory in zip(self.weights, self.before, self.memories, strict=True):
            if memory.size:
                weight.copy_(before + memory.project(weight - before, self.side))


def layer_inputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """``(N, D)`` rows that the flattened weight ``(out, D)`` of a layer multiplies: inputs, or patches of images.

    Raises:
        ValueError: If the layer is neither linear nor a plain 2-d convolution.
    """
    if isinstance(layer, nn.Linear):
        return inputs.detach().flatten(0, -2)
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    if isinstance(layer, nn.Conv2d) and plain and not isinstance(layer.padding, str):
        patches = F.unfold(inputs.detach(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        return patches.transpose(1, 2).flatten(0, 1)
    raise ValueError(
        f"the inputs of a {type(layer).__name__} with these options have no rows that its weight multiplies; choose "
        "`nn.Linear` layers, or `nn.Conv2d` with one group and a padding of zeros in numbers."
    )


def _taken(held: list[float], energy: float, crossing: bool, start: float) -> int:
    """How many directions, if ``held`` is the share after each and ``start`` that before the first."""
    before = sum(share < energy for share in held)
    return before + 1 if crossing and start < energy and before < len(held) else before
